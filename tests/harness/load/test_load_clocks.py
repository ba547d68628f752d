"""The clocks of a load: the kernel's stamps on the run's time, wake-ups, engine seconds."""

from __future__ import annotations

import select
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest
from answers import CHUNKED, LAST_CHUNK, chunk, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import serve

from mtpbench.load import clocks, transport_epoll
from mtpbench.load.clocks import STEP_US, Timer, WallClock, stamp_receives, unpack_timespec


def test_the_wall_clocks_offset_is_followed_through_slews_and_steps(monkeypatch):
    """The wall clock is moved by hand; readings of the monotonic clock take 1 µs each."""
    now, moved_ns = [10**9], [0]

    def perf_counter_ns():
        now[0] += 1000
        return now[0]

    monkeypatch.setattr(time, "perf_counter_ns", perf_counter_ns)
    monkeypatch.setattr(time, "time_ns", lambda: now[0] + 500 + 5 * 10**18 // 10 + moved_ns[0])
    wall = WallClock(2 * 10**9)
    zero_ns = wall.zero_ns
    assert zero_ns == 2 * 10**9 + 5 * 10**17
    for slew_us in (100, 200, 300):
        moved_ns[0] = slew_us * 1000
        assert wall.follow() == 0, "a slew within the slack"
        assert wall.zero_ns == zero_ns + slew_us * 1000
    assert (wall.drift_us, wall.largest_step_us) == (300, 0)
    moved_ns[0] -= 2 * STEP_US * 1000
    assert wall.look() == -2 * STEP_US
    assert (wall.drift_us, wall.largest_step_us) == (300 - 2 * STEP_US, 2 * STEP_US)
    assert wall.look() == wall.follow() == 0
    assert wall.zero_ns == zero_ns + 300_000 - 2 * STEP_US * 1000
    assert wall.largest_step_us == 2 * STEP_US


class SteppingClock:
    """The wall clock that the transport and the kernel read; it is set by so much at the n-th reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_us: int, readings: int, of: str) -> None:
        self.step_ns, self.left, self.of = step_us * 1000, readings, of
        self.moved_ns = 0
        readable_time = SimpleNamespace(perf_counter_ns=time.perf_counter_ns, time_ns=self.time_ns)
        monkeypatch.setattr(clocks, "time", readable_time)
        monkeypatch.setattr(transport_epoll, "unpack_timespec", self.stamp)

    def _count(self, reading: str) -> int:
        if reading == self.of:
            self.left -= 1
            if self.left == 0:
                self.moved_ns = self.step_ns
        return self.moved_ns

    def time_ns(self) -> int:
        return time.time_ns() + self._count("look")

    def stamp(self, control: bytes) -> tuple[int, int]:
        seconds, nanoseconds = unpack_timespec(control)
        return divmod(seconds * 10**9 + nanoseconds + self._count("stamp"), 10**9)


YEARS_US = 20 * 365 * 86_400 * 10**6


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    step_us=st.sampled_from([-YEARS_US, -3_600_000_000, -1_000_000, -20_000, -3_000, -300])
    | st.sampled_from([300, 3_000, 20_000, 1_000_000, 3_600_000_000, YEARS_US])
    | st.integers(-50_000, 50_000),
    readings=st.integers(2, 40),
    of=st.sampled_from(["look", "stamp"]),
)
def test_a_step_of_the_wall_clock_moves_no_stamp_or_is_owned_up_to(step_us, readings, of):
    """Whenever the clock is set, a chunk lies between its sending and its reading, or reads are counted."""
    sent_ns: list[int] = []

    def script(peer):
        for _ in range(2):
            peer.read()
            peer.send(CHUNKED)
            for piece in tokens():
                time.sleep(0.001)
                sent_ns.append(time.perf_counter_ns())
                peer.send(chunk(piece))
            peer.send(LAST_CHUNK)

    with pytest.MonkeyPatch.context() as patch:
        SteppingClock(patch, step_us, readings, of)
        outcome, _ = serve(script, concurrency=1, warmup=0, measured=2)
    assert outcome.errors == [None, None]
    if outcome.monitor.stamps != "kernel":
        pytest.skip("this kernel does not stamp")
    ended_us = (time.perf_counter_ns() - outcome.scheduler.origin_ns) // 1000
    sent_us = [(ns - outcome.scheduler.origin_ns) / 1000 for ns in sent_ns if ns]
    times = outcome.table.chunk_times_us.reshape(2, -1)
    assert (np.diff(times) >= 0).all()
    assert (times <= ended_us).all()
    early_us = np.array(sent_us).reshape(2, -1)[:, :4] - times
    assert early_us.max() < STEP_US or outcome.monitor.misstamped
    assert outcome.monitor.misstamped == 0 or step_us < 0


def test_a_step_between_two_looks_costs_the_stamps_of_that_round_only(monkeypatch):
    clock = SteppingClock(monkeypatch, 10**9, 9, "look")
    outcome, _ = serve(lambda peer: [answer(peer) for _ in range(8)], concurrency=1, warmup=0, measured=8)
    assert outcome.errors == [None] * 8
    assert clock.moved_ns
    if outcome.monitor.stamps == "kernel":
        assert 0 < outcome.monitor.user_stamped < outcome.monitor.reads
        assert outcome.monitor.clock_step_us == pytest.approx(10**9, abs=STEP_US)


def answer(peer) -> None:
    peer.read()
    peer.send(CHUNKED)
    for piece in tokens():
        time.sleep(0.001)
        peer.send(chunk(piece))
    peer.send(LAST_CHUNK)


def test_an_interrupted_reading_of_the_clocks_does_not_move_the_offset(monkeypatch):
    readings = iter([0, 90_000_000, 90_001_000, 90_002_000, 90_003_000, 90_004_000, 90_005_000])
    walls = iter([80_000_000, 90_001_500, 90_003_500, 90_004_500])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings))
    monkeypatch.setattr(time, "time_ns", lambda: next(walls))
    assert abs(WallClock(0).zero_ns) <= 1000


def test_the_kernel_stamps_what_a_socket_receives():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            if not stamp_receives(client):
                pytest.skip("this platform does not stamp")
            for _ in range(100):  # the kernel begins to stamp a moment after the first socket has asked
                before_ns = time.time_ns()
                server.sendall(b"x")
                assert select.select([client], [], [], 5)[0]
                time.sleep(0.02)
                data, control, _, _ = client.recvmsg(16, 32)
                assert data == b"x"
                if control:
                    break
            else:
                pytest.skip("this kernel takes the option and does not stamp")
            seconds, nanoseconds = unpack_timespec(control[0][2])
            stamp_ns = seconds * 10**9 + nanoseconds
            assert before_ns - 10**6 <= stamp_ns <= time.time_ns() - 15 * 10**6


@pytest.fixture
def timer():
    made = Timer()
    if made.descriptor is None:
        pytest.skip("no timerfd here")
    yield made
    made.close()
    made.close()  # closing twice is no fault


def readable(timer, timeout_s):
    return bool(select.select([timer.descriptor], [], [], timeout_s)[0])


def test_a_timer_wakes_at_its_moment_and_not_before(timer):
    due_ns = time.perf_counter_ns() + 30_000_000
    timer.set(due_ns)
    assert not readable(timer, 0)
    assert readable(timer, 5)
    assert time.perf_counter_ns() >= due_ns
    timer.clear()
    assert not readable(timer, 0)


def test_a_moment_that_has_passed_wakes_at_once(timer):
    for moment in (time.perf_counter_ns() - 10**9, 0, -5):
        timer.set(moment)
        assert readable(timer, 5)
        timer.clear()
    assert not readable(timer, 0)


def test_a_later_moment_replaces_the_one_before(timer):
    timer.set(time.perf_counter_ns() + 5_000_000)
    timer.set(time.perf_counter_ns() + 10**12)
    assert not readable(timer, 0.05)
    timer.clear()
    timer.set(time.perf_counter_ns() + 1_000_000)
    assert readable(timer, 5)
