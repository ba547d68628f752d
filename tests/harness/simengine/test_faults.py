import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import pairwise

import aiohttp
import pytest
from http_engine import RATES, ask, events, run

from mtpbench.engines import simulated
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import Fault
from mtpbench.simengine.faults import KINDS, FaultPlan, check_fault, parse_faults

BOTH = pytest.mark.parametrize("split", [False, True], ids=["aggregated", "split"])


def faulty(test, *words, split=False, speed=10, **fault):
    return run(test, *words, faults=(Fault(**fault),), split=split, speed=speed)


# ------------------------------------------------------------------------------------------- schedules


def test_an_unknown_kind_lists_the_valid_ones():
    with pytest.raises(
        UnsupportedError, match=r"unknown fault 'boom'; valid: exit_before_bind, .*malformed_event"
    ):
        check_fault(Fault(kind="boom"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(kind="stall", at_s=1, at_request=2), "at_s and at_request are given"),
        (Fault(kind="stall", probability=1.5), "probability 1.5 is not in"),
        (Fault(kind="never_healthy", probability=0.5), "takes no probability"),
        (Fault(kind="stall", at_s=-1), "can't be negative"),
    ],
)
def test_impossible_schedules_are_refused(fault, message):
    with pytest.raises(UnsupportedError, match=message):
        check_fault(fault)


@pytest.mark.parametrize("text", ["{", "{}", '[{"kind":"stall","when":3}]', '[{"kind":"boom"}]'])
def test_a_wrong_list_is_refused(text):
    with pytest.raises(InputError):
        parse_faults(text)


def test_a_request_fault_strikes_by_index_time_or_chance():
    plan = FaultPlan([Fault(kind="stall", at_request=1), Fault(kind="no_done", at_s=5.0)], 1)
    struck = [sorted(plan.strike(now)) for now in (0.0, 1.0, 6.0, 7.0)]
    assert struck == [[], ["stall"], ["no_done"], []]
    chance = [bool(FaultPlan([Fault(kind="stall", probability=0.3)], 7).strike(0))]
    plan = FaultPlan([Fault(kind="stall", probability=0.3)], 7)
    drawn = [bool(plan.strike(0)) for _ in range(1000)]
    assert drawn[:1] == chance
    assert 250 < sum(drawn) < 350
    assert all(FaultPlan([Fault(kind="stall")], 1).strike(0) for _ in range(3))


# ------------------------------------------------------------------------------------------- requests


@BOTH
@pytest.mark.parametrize("status", [429, 500, 503])
def test_http_errors_come_in_openais_form(split, status):
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", json=ask()) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == status
        assert (await events(session, url, ask()))[-1] == "[DONE]"

    faulty(test, split=split, kind=f"http_{status}", at_request=0)


@BOTH
def test_disconnect_before_the_stream_sends_no_byte(split):
    async def test(session, url):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(f"{url}/v1/completions", json=ask())
        assert (await events(session, url, ask()))[-1] == "[DONE]"

    faulty(test, split=split, kind="disconnect_before_stream", at_request=0)


@BOTH
def test_disconnect_in_mid_stream_breaks_off_after_some_events(split):
    async def test(session, url):
        got, broken = b"", False
        async with session.post(f"{url}/v1/completions", json=ask(500)) as response:
            try:
                async for chunk in response.content.iter_any():
                    got += chunk
            except aiohttp.ClientPayloadError:
                broken = True
        assert broken
        assert 2 <= got.count(b"data: ") < 20
        assert b"[DONE]" not in got

    faulty(test, split=split, kind="disconnect_mid_stream", value=3.0)


@BOTH
def test_no_usage_leaves_every_usage_out(split):
    async def test(session, url):
        found = await events(session, url, ask())
        assert "usage" not in "".join(found)
        assert found[-1] == "[DONE]"

    faulty(test, split=split, kind="no_usage")


@BOTH
def test_no_done_ends_without_it(split):
    async def test(session, url):
        found = await events(session, url, ask())
        assert "[DONE]" not in found
        assert json.loads(found[-1])["usage"]["completion_tokens"] == 12

    faulty(test, split=split, kind="no_done")


def test_a_malformed_event_is_cut_off_inside_its_json():
    async def test(session, url):
        found = await events(session, url, ask())
        bad = []
        for i, event in enumerate(found[:-1]):
            try:
                json.loads(event)
            except ValueError:
                bad.append(i)
        assert bad == [1]

    faulty(test, kind="malformed_event")


def test_a_stall_sends_nothing_for_its_time_and_then_everything():
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", json=ask(20)) as response:
            times = [time.monotonic() async for _ in response.content.iter_any()]
        assert max(b - a for a, b in pairwise(times)) >= 0.5

    faulty(test, kind="stall", value=6.0)


# ------------------------------------------------------------------------------------------- processes


async def health(session, url):
    async with session.get(f"{url}/health") as response:
        return response.status


@BOTH
def test_never_healthy_answers_503(split):
    async def test(session, url):
        assert await health(session, url) == 503

    faulty(test, split=split, kind="never_healthy")


def test_a_slow_start_becomes_healthy_after_its_time():
    async def test(session, url):
        assert await health(session, url) == 503
        await asyncio.sleep(0.35)
        assert await health(session, url) == 200

    faulty(test, kind="slow_start", value=3.0)


def test_metrics_can_go_missing():
    async def test(session, url):
        async with session.get(f"{url}/metrics") as response:
            assert response.status == 404

    faulty(test, kind="metrics_missing")


def test_metrics_reset_starts_every_counter_again():
    async def test(session, url):
        async def generated():
            async with session.get(f"{url}/metrics") as response:
                lines = (await response.text()).splitlines()
            return float(next(x for x in lines if x.startswith("vllm:generation_tokens_total")).split()[1])

        await events(session, url, ask(10))
        before = await generated()
        await asyncio.sleep(0.9)
        after = await generated()
        await events(session, url, ask(4))
        return before, after, await generated()

    assert faulty(test, kind="metrics_reset", at_s=8.0) == (10, 0, 4)


def test_mtp_silently_off_sends_one_token_an_event_and_has_no_counters():
    async def test(session, url):
        *tokens, _, _ = await events(session, url, ask(10))
        assert len(tokens) == 10
        async with session.get(f"{url}/metrics") as response:
            assert simulated.counters(await response.text()) is None

    faulty(test, "--acceptance-rates", RATES, kind="mtp_silently_off")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process and its port."""

    def __init__(self, *faults, words=()):
        self.port = free_port()
        text = json.dumps([{"kind": kind, **more} for kind, more in faults])
        base = [sys.executable, "-m", "mtpbench.simengine.server", "--port", str(self.port), "--model", "m"]
        self.process = subprocess.Popen([*base, "--faults", text, *words], stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def await_healthy(self):
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise AssertionError("never healthy")


def test_exit_before_bind_ends_with_its_status():
    with Server(("exit_before_bind", {"value": 7})) as server:
        assert server.process.wait(20) == 7


def test_exit_after_bind_answers_first_and_ends_then():
    with Server(("exit_after_bind", {"value": 9, "at_request": 0})) as server:
        server.await_healthy()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(
                f"http://127.0.0.1:{server.port}/v1/completions", json.dumps(ask()).encode()
            )
        assert server.process.wait(20) == 9


def test_sigterm_ends_a_server_at_once_in_mid_stream_too():
    with Server() as server:
        server.await_healthy()
        body = json.dumps(ask(100_000)).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/completions", body) as stream:
            assert stream.readline().startswith(b"data: ")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0


def test_an_ignored_sigterm_needs_sigkill():
    with Server(("sigterm_ignored", {})) as server:
        server.await_healthy()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        server.process.kill()
        assert server.process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--speed", "50"), 2, "at most 10 times"),
        (("--role", "router"), 2, "a router needs the addresses"),
        (("--profile", "nope"), 2, "unknown profile 'nope'"),
        (("--acceptance-rates", "0.2,0.5"), 2, "acceptance rates"),
        (("--bogus", "1"), 2, "unrecognized arguments"),
    ],
)
def test_wrong_options_end_with_status_2_and_a_sentence(words, status, message):
    with Server(words=words) as server:
        _, log = server.process.communicate(timeout=20)
        assert server.process.returncode == status
        assert message in log
        assert "Traceback" not in log


def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Server(words=("--port", str(taken.getsockname()[1]))) as server:
            _, log = server.process.communicate(timeout=20)
    assert server.process.returncode == 3
    assert "address already in use" in log


def test_the_server_imports_without_the_heavy_libraries():
    code = "import sys, mtpbench.simengine.server; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["pandas", "pyarrow", "typer", "rich", "pydantic"]
    found = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_kind_has_a_test_here():
    with open(os.path.abspath(__file__), encoding="utf-8") as source:
        text = source.read()
    assert [kind for kind in KINDS if f'"{kind}"' not in text and not kind.startswith("http_")] == []
