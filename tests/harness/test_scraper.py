"""The scraper: counters and power of several processes, on the load's clock."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from mtpbench.engines import llamacpp, sglang, simulated, trtllm, vllm
from mtpbench.engines.simulated import simulated_power
from mtpbench.records import SpecCounters
from mtpbench.scraper import Scraper

POWER = 'mtpbench_sim_gpu_power_watts{gpu="0"} 500\nmtpbench_sim_gpu_energy_joules_total{gpu="0"} %d\n'


def read_counters(text):
    """The number after `drafts`, as the engines' modules read theirs."""
    for line in text.splitlines():
        if line.startswith("drafts "):
            return SpecCounters(drafts=float(line.split()[1]), draft_tokens=0.0, accepted_tokens=0.0)
    return None


def sample(handlers, seconds=0.25, *, names=None, **options):
    """Sample a server with one handler per process for a while; the scraper afterwards."""

    async def main():
        app = web.Application()
        for name, handler in handlers.items():
            app.router.add_get(f"/{name}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        urls = {name: f"http://127.0.0.1:{port}/{name}" for name in names or handlers}
        try:
            async with Scraper(urls, **{"interval_s": 0.05, **options}) as scraper:
                scraper.start_clock(time.perf_counter())
                await asyncio.sleep(seconds)
        finally:
            await runner.cleanup()
        return scraper

    return asyncio.run(main())


def counting():
    count = 0

    async def handler(request):
        nonlocal count
        count += 1
        return web.Response(text=f"drafts {count}\n" + POWER % (count * 10))

    return handler


def test_it_samples_before_the_origin_during_the_run_and_after_it():
    scraper = sample({"d0": counting()}, counters=read_counters, power=simulated_power)
    times = [s.time_s for s in scraper.counters]
    assert times[0] < 0 < times[1]
    assert times == sorted(times)
    assert times[-1] > 0.2
    assert [s.counters.drafts for s in scraper.counters] == list(range(1, len(times) + 1))
    assert {s.reason for s in scraper.counters} == {None}
    assert [s.energy_j for s in scraper.power] == [10 * (i + 1) for i in range(len(times))]
    assert {(s.process, s.gpu, s.power_w) for s in scraper.power} == {("d0", 0, 500.0)}


def test_times_are_engine_seconds():
    scraper = sample({"d0": counting()}, counters=read_counters, time_scale=10.0)
    assert scraper.counters[-1].time_s > 2.0
    assert scraper.power == []


def test_every_process_is_sampled():
    scraper = sample({"d0": counting(), "d1": counting()}, counters=read_counters)
    assert {s.process for s in scraper.counters} == {"d0", "d1"}


def test_a_failed_scrape_is_a_sample_with_its_reason_and_the_others_go_on():
    async def busy(request):
        return web.Response(status=500, text="no")

    async def garbled(request):
        return web.Response(text='mtpbench_sim_gpu_power_watts{gpu="0"} abc\n')

    handlers = {"good": counting(), "busy": busy, "garbled": garbled}
    scraper = sample(handlers, names=[*handlers, "absent"], counters=read_counters, power=simulated_power)
    reasons = {s.process: s.reason for s in scraper.counters}
    assert reasons["good"] is None
    assert (reasons["busy"], reasons["absent"]) == ("http_500: no", "http_404: 404: Not Found")
    assert reasons["garbled"].startswith("bad_metrics: unreadable metrics")
    assert {s.counters for s in scraper.counters if s.process != "good"} == {None}
    assert {s.process for s in scraper.power} == {"good"}


def test_a_process_that_is_gone_is_a_reason_not_an_exception():
    async def main():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        urls = {"d0": f"http://127.0.0.1:{port}/metrics"}
        async with Scraper(urls, interval_s=1, counters=read_counters) as scraper:
            return scraper

    samples = asyncio.run(main()).counters
    assert len(samples) == 2
    assert all(s.counters is None and s.reason.startswith("connect_failed: ") for s in samples)


def test_metrics_without_counters_say_so():
    async def silent(request):
        return web.Response(text="other 1\n")

    (first, *_) = sample({"d0": silent}, seconds=0, counters=read_counters).counters
    assert (first.counters, first.reason) == (None, "no counters in the metrics")


def pages(*texts):
    """A handler that answers each scrape with the next text, and with the last one from then on."""
    left = list(texts)

    async def handler(request):
        return web.Response(text=left.pop(0) if len(left) > 1 else left[0])

    return handler


def of_ranks(**drafts):
    return "".join(
        f'vllm:spec_decode_num_{name}_total{{engine="{rank}"}} {value}\n'
        for rank, value in drafts.items()
        for name in ("drafts", "draft_tokens", "accepted_tokens")
    )


@pytest.mark.parametrize("after", [of_ranks(a=1, b=500), of_ranks(b=500)], ids=["fell", "went"])
def test_one_of_many_ranks_that_begins_anew_shows_though_the_sum_rises(after):
    """The counters of a rank that was started again, beside one that goes on: sums of 200, 240, then 500."""
    handler = pages(of_ranks(a=100, b=100), of_ranks(a=120, b=120), after)
    samples = sample({"d0": handler}, counters=vllm.counters).counters
    assert [s.counters.drafts for s in samples] == sorted(s.counters.drafts for s in samples)
    assert [s.restarted for s in samples] == [False, False, True] + [False] * (len(samples) - 3)


def of_sglang(**counts):
    """Streaming and other requests are counted apart."""
    return "".join(
        f'sglang:{name}{{is_streaming="{kind}"}} {value}\n'
        for kind, value in counts.items()
        for name in ("generation_tokens_total", "num_requests_total", "spec_verify_calls_total")
    )


def of_trtllm(**counts):
    return "".join(
        f'trtllm_spec_decode_{name}_tokens_total{{rank="{rank}",token_position="0"}} {value}\n'
        for rank, value in counts.items()
        for name in ("drafted", "accepted")
    )


def of_trtllm_iterations(**counts):
    return "".join(
        f'trtllm_spec_decode_num_{name}_tokens_total{{rank="{rank}"}} {value}\n'
        for rank, value in counts.items()
        for name in ("draft", "accepted")
    )


@pytest.mark.parametrize(
    ("engine", "page"),
    [
        (simulated, of_ranks),
        (llamacpp, lambda **counts: of_ranks(**counts).replace("vllm:", "llamacpp:")),
        (sglang, of_sglang),
        (trtllm, of_trtllm),
        (trtllm, of_trtllm_iterations),
    ],
    ids=["simulated", "llamacpp", "sglang", "trtllm", "trtllm, of iterations"],
)
def test_a_series_that_fell_shows_on_every_engine_though_the_sum_rises(engine, page):
    handler = pages(page(a=100, b=100), page(a=120, b=120), page(a=1, b=500))
    samples = sample({"d0": handler}, counters=engine.counters).counters
    assert [s.restarted for s in samples] == [False, False, True] + [False] * (len(samples) - 3)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999", "-1", "18446744073709551615", "N/A", ""])
def test_a_counter_that_can_be_none_is_a_failed_scrape_that_is_said_in_the_notes(value):
    """`NaN` gauges and counters: elastic/beats#12286, seldon-core#2685."""
    odd = of_ranks(a=1, b=value)
    scraper = sample({"d0": pages(of_ranks(a=1, b=1), odd)}, counters=vllm.counters)
    first, *others = scraper.counters
    assert first.counters.drafts == 2
    assert {s.counters for s in others} == {None}
    assert all(s.reason.startswith("bad_metrics: ") for s in others)
    (note,) = scraper.notes
    assert note.startswith(f"{len(others)} scrapes of d0's metrics gave nothing: bad_metrics: ")


def test_a_bug_in_a_reader_is_raised_at_the_end():
    def broken(text):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        sample({"d0": counting()}, counters=broken)
