"""The clocks of a load: the kernel's stamps on the run's time, wake-ups, engine seconds."""

from __future__ import annotations

import select
import socket
import time

import pytest

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
        assert wall.follow() == zero_ns + slew_us * 1000
    assert (wall.drift_us, wall.largest_step_us) == (300, 0)
    moved_ns[0] -= 2 * STEP_US * 1000
    wall.follow()
    assert (wall.drift_us, wall.largest_step_us) == (300 - 2 * STEP_US, 2 * STEP_US)
    assert wall.follow() == zero_ns + 300_000 - 2 * STEP_US * 1000
    assert wall.largest_step_us == 2 * STEP_US


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
