"""Depth by batch on the embedded engine: looked up in every step, the same on both clocks."""

from __future__ import annotations

import asyncio
import dataclasses

import aiohttp
import numpy as np
import pytest
from http_engine import ask, engine
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from simulated_points import LIMITS, RATES, aggregated, group, make_point, split

from mtpbench import hardware
from mtpbench.engines import simulated
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.records import DepthRange, DepthRule, EngineLimits, Load, Point, Workload
from mtpbench.simengine.drafting import Drafting, Drafts
from mtpbench.simengine.engine_steps import TokenSequence
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.service import parse_arguments
from mtpbench.simengine.virtual import VirtualRun, simulate_point
from mtpbench.simengine.worker_model import make_worker
from mtpbench.workload import draw_lengths

PROFILE = load_profile("dsv4-gb200")
BIG = 1_000_000


def rule(*rows: tuple[int, int, int]) -> DepthRule:
    ranges = (DepthRange(first=first, last=last, draft_tokens=drafts) for first, last, drafts in rows)
    return DepthRule(kind="by_batch", ranges=tuple(ranges))


def with_rule(point: Point, depth: DepthRule) -> Point:
    assert point.arm.speculation is not None
    speculation = dataclasses.replace(point.arm.speculation, depth=depth)
    return dataclasses.replace(point, arm=dataclasses.replace(point.arm, speculation=speculation))


def play(point: Point, rounds: int = 3) -> VirtualRun:
    counts = RequestCounts(warmup=point.concurrency, measured=rounds * point.concurrency)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    return simulate_point(point, LIMITS, draw_lengths(point.workload, counts.total, point.seed), schedule)


def same(one: VirtualRun, other: VirtualRun) -> bool:
    return bool(
        (one.requests.end_us == other.requests.end_us).all()
        and (one.requests.chunk_times_us == other.requests.chunk_times_us).all()
        and (one.requests.chunk_tokens == other.requests.chunk_tokens).all()
        and one.power == other.power
    )


class SeenDrafts(Drafts):
    """Drafts that remember the depth of every step."""

    def take(self, sequences, ranks, depth):  # type: ignore[no-untyped-def]
        seen.append((len(sequences), depth))
        return super().take(sequences, ranks, depth)


seen: list[tuple[int, int]] = []


@settings(max_examples=40, deadline=None)
@given(
    lasts=st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True).map(sorted),
    depths=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    jobs=st.lists(st.tuples(st.integers(1, 300), st.integers(2, 40)), min_size=1, max_size=16),
    layout=st.sampled_from(["TP8", "DEP8"]),
    chunk=st.sampled_from([64, 8192]),
)
def test_every_step_has_the_depth_of_its_requests_on_the_fullest_rank(lasts, depths, jobs, layout, chunk):
    """Prompts in a step count, as they do on vLLM; a step's cost and its drafts are those of that depth."""
    firsts = [1, *(last + 1 for last in lasts)]
    table = rule(*zip(firsts, lasts, depths, strict=False))
    drafting = Drafting(rates=(0.9, 0.7, 0.5), depth=table)
    limits = EngineLimits(max_running=14, prefill_chunk_tokens=chunk)
    worker = make_worker(group("aggregated", 1, layout), PROFILE, limits, drafting, [1])
    worker.drafts = SeenDrafts(drafting, [1], worker._ranks)
    for key, (prompt, total) in enumerate(jobs):
        worker.submit(TokenSequence(key, prompt, total))
    now, drafted, drafts = 0.0, 0, 0
    while (end := worker.begin(now)) is not None:
        seen.clear()
        step = worker._step
        assert step is not None
        scheduled = np.bincount(worker._state[5, : worker._n], minlength=worker._ranks)
        decoding = int(scheduled.max())
        for sequence, _ in step.chunks:
            scheduled[sequence.rank] += 1
        depth = min(table.depth_at(int(scheduled.max())), 3)
        if step.decoding and not step.chunks:
            times = PROFILE.step_times_s(group("aggregated", 1, layout), depth, decoding)
            assert end - now == pytest.approx(times[decoding], abs=1e-9)
        worker.finish()
        assert seen == ([(step.decoding, depth)] if depth and step.decoding else [])
        drafts += step.decoding if depth else 0
        drafted += step.decoding * depth
        now = end
    counters = worker.counters()
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens) == (drafts, drafted)
    assert worker.generation_tokens == sum(total for _, total in jobs)


@pytest.mark.parametrize("topology", [aggregated(2, "TP8"), split((2, "TP8"), (1, "DEP8"))], ids=str)
@pytest.mark.parametrize("drafts", [1, 2, 3])
def test_one_range_of_all_batches_gives_the_figures_of_the_static_arm(topology, drafts):
    static = make_point(topology, 24, drafts)
    ruled = with_rule(static, rule((1, BIG, drafts)))
    assert same(play(static), play(ruled))
    assert play(static).counters == play(ruled).counters
    # Also as a part of a deeper arm: positions beyond the depth are never drafted.
    cut = with_rule(make_point(topology, 24, 3), rule((1, BIG, drafts)))
    assert same(play(static), play(cut))
    for one, other in zip(play(static).counters, play(cut).counters, strict=True):
        assert one.counters is not None
        assert other.counters is not None
        assert one.counters.drafts == other.counters.drafts
        assert one.counters.draft_tokens == other.counters.draft_tokens
        assert (*one.counters.per_position, 0.0, 0.0)[:3] == other.counters.per_position


def test_a_table_of_no_drafts_above_some_batch_is_off_there_and_drafts_below():
    table = rule((1, 4, 3), (5, BIG, 0))
    work = Workload(isl=64, osl=200)
    above = with_rule(make_point(split((1, "TP8"), (1, "TP8")), 32, 3, workload=work), table)
    off = dataclasses.replace(above, arm=make_point(aggregated(1, "TP8"), 1, 0).arm)
    # Until the load ends and the batch falls, every step is one without speculation.
    sent_s = play(above).requests.sent_us.max()
    steps, plain = (play(point).requests.chunk_times_us for point in (above, off))
    assert np.array_equal(np.sort(steps[steps < sent_s]), np.sort(plain[plain < sent_s]))
    below = with_rule(make_point(aggregated(1, "TP8"), 4, 3, workload=work), table)
    assert same(play(below), play(make_point(aggregated(1, "TP8"), 4, 3, workload=work)))


def test_the_command_line_of_a_server_carries_the_table_and_the_shape():
    point = with_rule(make_point(aggregated(1, "TP8"), 4, 3), rule((1, 8, 3), (9, 64, 1)))
    assert point.simulation is not None
    simulation = dataclasses.replace(point.simulation, acceptance_spread=0.2, step_costs="mtp")
    point = dataclasses.replace(point, simulation=simulation)
    rack = hardware.lookup("gb200-nvl72")
    simulated.check(point, rack)
    (process,) = simulated.deploy(point, rack).processes
    assert "--draft-depth [[1,8,3],[9,64,1]]" in " ".join(process.argv)
    words = list(process.argv[3:])
    words[words.index("--port") + 1] = "1"
    read = parse_arguments(words).drafting
    assert read == Drafting(rates=RATES[3], depth=rule((1, 8, 3), (9, 64, 1)), spread=0.2)


@pytest.mark.parametrize("table", ["[[1,2]]", "{}x", "[[1,2,true]]", "[1]", "[[1,2,99]]", "[[0,2,1]]"])
def test_a_table_that_is_none_is_refused_by_the_server(table):
    words = ["--port", "1", "--model", "m", "--acceptance-rates", "0.5", "--draft-depth", table]
    with pytest.raises(InputError, match=r"--draft-depth .*JSON like \[\[1,16,3\],\[17,64,2\]\] is needed"):
        parse_arguments(words)


def test_a_depth_that_the_engine_would_choose_is_refused_with_what_would_be_right():
    point = with_rule(make_point(aggregated(1, "TP8"), 4, 3), DepthRule(kind="adaptive"))
    for refuse in (lambda: simulated.check(point, hardware.lookup("gb200-nvl72")), lambda: play(point)):
        with pytest.raises(UnsupportedError, match=r"give it a table, such as depth: \{by_batch"):
            refuse()


SPEED = 4.0
TABLE = rule((1, 4, 3), (5, 8, 1), (9, BIG, 0))
WORDS = ("--acceptance-rates", "0.79,0.48,0.22", "--draft-depth", "[[1,4,3],[5,8,1],[9,1000000,0]]")


async def scrape(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with session.get(f"{url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return {sample.name: sample.value for family in families for sample in family.samples}


def test_the_server_drafts_by_the_table_as_the_virtual_clock_does():
    """Constant batches of 3, 7 and 12 sequences: 3, 1 and no drafts a step, at those depths' pace."""
    tokens = 150

    async def serve() -> dict[int, tuple[float, dict[str, float]]]:
        found = {}
        for slots in (3, 7, 12):
            async with engine(*WORDS, speed=SPEED) as (session, url):

                async def one(session: aiohttp.ClientSession = session, url: str = url) -> None:
                    async with session.post(f"{url}/v1/completions", json=ask(tokens, 8)) as response:
                        assert response.status == 200
                        await response.read()

                began = asyncio.get_running_loop().time()
                await asyncio.gather(*(one() for _ in range(slots)))
                took = SPEED * (asyncio.get_running_loop().time() - began)
                found[slots] = took, await scrape(session, url)
        return found

    for slots, (took_s, samples) in asyncio.run(serve()).items():
        drafts = samples["vllm:spec_decode_num_drafts_total"]
        drafted = samples["vllm:spec_decode_num_draft_tokens_total"]
        work = Workload(isl=8, osl=tokens)
        point = with_rule(make_point(aggregated(1, "TP8"), slots, 3, workload=work), TABLE)
        counts = RequestCounts(warmup=0, measured=slots)
        schedule = Schedule.independent(Load(), counts, slots, 1)
        run = simulate_point(point, LIMITS, draw_lengths(work, slots, 1), schedule)
        played = run.counters[-1].counters
        assert played is not None
        assert took_s == pytest.approx(float(run.requests.end_s.max()), rel=0.25)
        if slots == 12:
            # Requests that come a little apart end so, and the last few draft.
            assert played.drafts == 0
            assert drafts < 0.05 * slots * tokens
        else:
            assert drafts == pytest.approx(played.drafts, rel=0.15)
            assert drafted == pytest.approx(played.draft_tokens, rel=0.15)
