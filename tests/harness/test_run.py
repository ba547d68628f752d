"""The whole pipeline on real processes: servers, load, records, results."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

import pytest

from mtpbench import run
from mtpbench.errors import RunError, StoreError
from mtpbench.executors.local import LocalSite
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.run import (
    RunPlan,
    SimulationFault,
    SimulationWorker,
    _simulated,
    plan_run,
    run_live,
    run_virtual,
)
from mtpbench.store import SweepStore, read_raw, read_sweep
from mtpbench.sweep import Sweep, load_sweep, simulate

SPLIT = ("- {aggregated: 1xTP4, concurrency: [1, 2]}", "- {prefill: 1xTP4, decode: 2xTP4, concurrency: [2]}")


class Log:
    """An observer that only remembers."""

    def __init__(self) -> None:
        self.results: list[PointResult] = []
        self.troubles: list[str] = []
        self.ladders = 0

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        self.ladders += 1

    def point_started(self, point: Point) -> None: ...

    def point_progress(self, point: Point, progress: object) -> None: ...

    def point_finished(self, point: Point, result: PointResult) -> None:
        self.results.append(result)

    def trouble(self, message: str) -> None:
        self.troubles.append(message)


def prepare(sweep: Sweep, root: Path) -> tuple[SweepStore, RunPlan]:
    store = SweepStore(root, sweep.info)
    store.open()
    return store, plan_run(sweep.points, store)


def go(sweep: Sweep, root: Path, stop_when: object = None) -> tuple[Log, SweepStore]:
    store, plan = prepare(sweep, root)
    log = Log()

    async def main() -> None:
        await run_live(plan, store, log, asyncio.Event(), LocalSite())

    asyncio.run(main())
    return log, store


def codes(result: PointResult) -> set[str]:
    # A busy machine may add these.
    return {reason.code for reason in result.reasons} - {"client_saturated", "not_settled"}


def servers_of(root: Path) -> list[int]:
    """Processes of the embedded engine whose command line names this folder's sweep."""
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            cwd = os.readlink(f"/proc/{pid}/fd/1")
        except OSError:
            continue
        if cwd.startswith(str(root)):
            pids.append(int(pid))
    return pids


def test_a_disaggregated_sweep_runs_on_real_processes(write_sweep, tmp_path: Path) -> None:
    # Slow enough that a scrape which a busy machine holds up is a small part of the window.
    sweep = load_sweep(write_sweep(SPLIT, ("speed: 5", "speed: 2")))
    log, store = go(sweep, tmp_path / "results")
    assert [codes(result) for result in log.results] == [set(), set()]
    off, mtp = log.results
    assert off.simulated
    assert off.clock == "scaled"
    assert off.acceptance.length is None
    assert off.acceptance.reason == "speculation_off"
    assert mtp.acceptance.length == pytest.approx(2.49, abs=0.4)
    assert mtp.interactivity_tps is not None
    assert off.interactivity_tps is not None
    assert mtp.interactivity_tps > 1.3 * off.interactivity_tps
    assert off.energy.energy_j is not None, off.energy.reason
    assert off.energy.gpus == 12
    stored = read_sweep(store.directory)
    assert len(stored.points) == 2
    raw = read_raw(stored.points[0].directory)
    assert (raw.requests.output_tokens == 32).all()
    assert (raw.requests.prompt_tokens == 64).all()
    assert {s.process for s in raw.counters} == {"prefill-0", "decode-0", "decode-1"}
    assert {p.name for p in (stored.points[0].directory / "logs").iterdir()} >= {"router.log", "decode-0.log"}
    assert set(stored.points[0].provenance.command_lines) == {"router", "prefill-0", "decode-0", "decode-1"}
    assert servers_of(tmp_path) == []


def test_a_second_run_measures_only_what_is_missing_or_invalid(write_sweep, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep())
    _, store = go(sweep, tmp_path)
    valid = [p.point.id for p in read_sweep(store.directory).points if p.result.valid]
    plan = plan_run(sweep.points, store)
    assert set(plan.done) == set(valid)
    gone = store.directory / sweep.points[1].id
    gone.rename(tmp_path / "elsewhere")
    plan = plan_run(sweep.points, store)
    assert sweep.points[1].id in {point.id for point in plan.points}
    assert len(plan_run(sweep.points, store, again=True).ladders) == 2


def starts_of(store: SweepStore, sweep: Sweep, but: str = "") -> list[str | None]:
    """The start of each point's servers, in the order of the plan."""
    by_id = {p.point.id: p.provenance.server_start for p in read_sweep(store.directory).points}
    return [by_id[point.id] for point in sweep.points if point.id != but]


def test_a_point_says_which_start_of_its_servers_it_was_measured_in(write_sweep, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep())
    _, store = go(sweep, tmp_path)
    before = starts_of(store, sweep)
    assert before == [before[0], before[0], before[2], before[2]]
    assert len({*before}) == 2
    assert None not in before
    (store.directory / sweep.points[1].id).rename(tmp_path / "elsewhere")
    kept = [point.id in plan_run(sweep.points, store).done for point in sweep.points]
    go(sweep, tmp_path)
    after = starts_of(store, sweep)
    # The rest of a ladder that went on later had servers of its own.
    assert after[1] not in before
    assert [new == old for new, old in zip(after, before, strict=True)] == kept


RESTARTED = (
    ("topologies:", "repeats: 2\nrestart: true\ntopologies:"),
    ("concurrency: [1, 2]", "concurrency: [2]"),
)


def test_repeats_by_restart_are_measured_on_servers_that_were_started_again(
    write_sweep, tmp_path: Path
) -> None:
    sweep = load_sweep(write_sweep(*RESTARTED))
    log, store = go(sweep, tmp_path)
    assert [(point.arm.name, point.repeat) for point in sweep.points] == [
        ("off", 0),
        ("mtp", 0),
        ("mtp", 1),
        ("off", 1),
    ]
    assert log.ladders == 4
    assert len({*starts_of(store, sweep)} - {None}) == 4
    assert len(list((store.directory / "servers").iterdir())) == 4
    stored = [read_sweep(store.directory).points[i].provenance for i in (1, 2)]
    # Another start of the embedded engine accepts other drafts.
    seeds = [words[words.index("--seed") + 1] for p in stored for words in p.command_lines.values()]
    assert seeds == ["0", "2"]
    # What is missing of a round goes on with servers of its own.
    (store.directory / sweep.points[2].id).rename(tmp_path / "elsewhere")
    before = starts_of(store, sweep, but=sweep.points[2].id)
    rest, _ = go(sweep, tmp_path)
    # A busy machine may have made points invalid: they are measured again, too.
    assert rest.ladders == len({2, *(i for i, result in enumerate(log.results) if not result.valid)})
    assert starts_of(store, sweep)[2] not in before


def test_a_server_that_dies_in_mid_load_costs_one_point_and_is_started_again(
    write_sweep, tmp_path: Path
) -> None:
    faults = "speed: 5\n  faults: [{kind: exit_after_bind, at_request: 8, value: 9}]"
    # Requests are counted from each start: the first point (8 requests) passes, the second one kills.
    sweep = load_sweep(write_sweep(("speed: 5", faults), ("concurrency: [1, 2]", "concurrency: [1, 2, 3]")))
    _log, store = go(sweep, tmp_path)
    by_id = {p.point.id: p.result for p in read_sweep(store.directory).points}
    results = [by_id[point.id] for point in sweep.points]
    assert len(results) == 6
    for first, second, third in (results[:3], results[3:]):
        assert codes(first) == set()
        assert "server_died" in codes(second)
        assert second.failed_requests > 0
        detail = next(r.detail for r in second.reasons if r.code == "server_died")
        assert "aggregated-0 ended with exit code 9" in detail
        # The third point ran on the restarted server, which died of its eighth request too.
        assert third.requests > 0
        assert "start_failed" not in codes(third)
    first, second, third = starts_of(store, sweep)[:3]
    assert first == second != third
    assert servers_of(tmp_path) == []


def test_a_server_that_dies_at_start_marks_every_point_and_says_its_last_words(
    write_sweep, tmp_path: Path
) -> None:
    sweep = load_sweep(write_sweep(("speed: 5", "speed: 5\n  faults: [{kind: exit_before_bind, value: 3}]")))
    _log, store = go(sweep, tmp_path)
    stored = read_sweep(store.directory)
    assert len(stored.points) == 4
    for point in stored.points:
        (reason,) = point.result.reasons
        assert reason.code == "start_failed"
        assert "exit code 3" in reason.detail
        assert "last log lines" in reason.detail
        assert point.result.interactivity_tps is None
        assert point.provenance.server_start is None


def test_mtp_that_is_silently_off_is_not_taken_for_mtp(write_sweep, tmp_path: Path) -> None:
    faults = "speed: 5\n  faults: [{kind: mtp_silently_off, role: decode}]"
    sweep = load_sweep(write_sweep(("speed: 5", faults), SPLIT))
    log, _ = go(sweep, tmp_path)
    assert codes(log.results[1]) == {"mtp_no_counters"}
    assert log.results[1].acceptance.length is None


def test_failed_requests_are_records_and_counted(write_sweep, tmp_path: Path) -> None:
    faults = "speed: 5\n  faults: [{kind: http_503, probability: 0.3}]"
    sweep = load_sweep(write_sweep(("speed: 5", faults), ("requests_per_slot: 6", "requests_per_slot: 10")))
    log, store = go(sweep, tmp_path)
    busiest = log.results[1]
    assert "error_rate" in codes(busiest)
    assert busiest.errors.keys() == {"http_503"}
    raw = read_raw(store.directory / sweep.points[1].id)
    assert len(raw.requests) == 22
    assert int((~raw.requests.ok & ~raw.requests.warmup).sum()) == busiest.failed_requests > 0


def test_the_virtual_clock_runs_a_sweep_without_servers(write_sweep, tmp_path: Path) -> None:
    sweep = simulate(load_sweep(write_sweep()))
    store, plan = prepare(sweep, tmp_path)
    log = Log()
    assert run_virtual(plan, store, log, threading.Event()) is False
    assert len(log.results) == 4
    assert all(result.valid and result.clock == "virtual" for result in log.results)
    assert plan_run(sweep.points, store).ladders == ()
    off, same, mtp, as_well = starts_of(store, sweep)
    assert None not in (off, mtp)
    assert off == same != mtp == as_well


def test_each_repeat_by_restart_is_a_simulated_start(write_sweep, tmp_path: Path) -> None:
    sweep = simulate(load_sweep(write_sweep(RESTARTED[0])))
    store, plan = prepare(sweep, tmp_path)
    assert run_virtual(plan, store, Log(), threading.Event()) is False
    starts = starts_of(store, sweep)
    assert len({*starts} - {None}) == 4
    assert starts[::2] == starts[1::2], "one start serves a ladder"


def all_ready(connections: list[Connection], _timeout_s: float) -> list[Connection]:
    """Waits until every worker has something to say."""
    while len(wait(connections)) < len(connections):
        time.sleep(0.01)
    return connections


@pytest.mark.parametrize("together", [False, True])
def test_a_simulation_that_is_told_to_stop_keeps_what_it_has(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Even where no exception gets through: a signal sets the event, and the run looks at it."""
    if together:
        monkeypatch.setattr(run, "wait", all_ready)
    sweep = simulate(load_sweep(write_sweep(*SLOW)))
    store, plan = prepare(sweep, tmp_path)
    stop = threading.Event()

    class StoppingLog(Log):
        def point_finished(self, point: Point, result: PointResult) -> None:
            super().point_finished(point, result)
            stop.set()

    log = StoppingLog()
    assert run_virtual(plan, store, log, stop) is True
    assert len(log.results) == 1
    assert log.results[0].point_id in plan_run(sweep.points, store).done


SIMULATED = ("requests_per_slot: 6", "requests_per_slot: 400"), ("[1, 2]", "[1, 2, 4]")


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_point_whose_worker_is_killed_is_simulated_once_more(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """As the kernel kills what takes too much memory: the run neither hangs nor loses another point."""
    sweep = simulate(load_sweep(write_sweep(*SIMULATED)))
    store, plan = prepare(sweep, tmp_path)
    victim, begun = max(plan.points, key=lambda point: point.concurrency).id, []
    simulate_point = SimulationWorker.simulate

    def strike(self: SimulationWorker, point: Point, start: str, store: SweepStore) -> None:
        simulate_point(self, point, start, store)
        if point.id == victim and len(begun) < deaths:
            begun.append(point.id)
            self.process.kill()

    monkeypatch.setattr(SimulationWorker, "simulate", strike)
    log = Log()
    if deaths == 1:
        assert run_virtual(plan, store, log, threading.Event()) is False
    else:
        with pytest.raises(RunError, match=rf"{victim}: the process that simulated it died twice"):
            run_virtual(plan, store, log, threading.Event())
    assert len(log.results) == len(plan.points) - (deaths - 1)
    assert len(log.troubles) == deaths
    assert f"{victim}: the process that simulated it died (killed by SIGKILL)" in log.troubles[0]


def test_an_error_in_a_simulation_reaches_the_run_as_what_it_is(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = simulate(load_sweep(write_sweep()))
    store, plan = prepare(sweep, tmp_path)
    (tmp_path / "tiny.simulated" / ".attempts").rmdir()
    (tmp_path / "tiny.simulated" / ".attempts").write_text("in the way")
    with pytest.raises(StoreError, match="can't be written"):
        run_virtual(plan, store, Log(), threading.Event())


def test_a_bug_in_a_simulation_is_an_internal_fault_with_its_own_traceback(
    write_sweep, tmp_path: Path
) -> None:
    """The worker is another process: without its traceback the report would say where it was read alone."""
    _, plan = prepare(simulate(load_sweep(write_sweep())), tmp_path)
    with pytest.raises(
        RuntimeError, match=r"(?s)Traceback .*, in run_virtual_point\n.*AttributeError: 'str'"
    ):
        run_virtual(plan, cast(SweepStore, "no store"), Log(), threading.Event())


@pytest.mark.parametrize(
    ("limit", "words"),
    [(MemoryError(), "no more memory"), (OSError(errno.EMFILE, "Too many open files"), "ulimit -n")],
)
def test_a_limit_that_a_simulation_meets_is_no_fault_of_ours(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: Exception, words: str
) -> None:
    store, plan = prepare(simulate(load_sweep(write_sweep())), tmp_path)

    def meet(*_: object) -> None:
        raise limit

    monkeypatch.setattr("mtpbench.run.simulate_point", meet)
    fault = _simulated(plan.points[0], "a start", store)
    assert isinstance(fault, SimulationFault)
    with pytest.raises(RunError, match=rf"{plan.points[0].id}: .*{words}"):
        fault.raise_again()


def test_a_machine_that_starts_no_process_is_named(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    sweep = simulate(load_sweep(write_sweep()))
    store, plan = prepare(sweep, tmp_path)
    monkeypatch.setattr("mtpbench.reaper.start_python", refuse)
    with pytest.raises(RunError, match="no process can be started for the simulation"):
        run_virtual(plan, store, Log(), threading.Event())


CLI = (sys.executable, "-m", "mtpbench", "run")
SLOW = ("requests_per_slot: 6", "requests_per_slot: 40"), ("concurrency: [1, 2]", "concurrency: [1, 2, 4]")


def start_cli(path: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (*CLI, str(path), "--results", str(root)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_point(child: subprocess.Popen[str]) -> None:
    assert child.stdout
    messages = []
    for line in child.stdout:
        messages.append(line)
        if line.startswith("[1/"):
            return
    child.wait()
    child.stdout.close()
    pytest.fail("the run ended without a point:\n" + "".join(messages))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_keeps_its_finished_points_and_can_be_continued(
    write_sweep, tmp_path: Path, number: signal.Signals
) -> None:
    path, root = write_sweep(*SLOW), tmp_path / "results"
    sweep = load_sweep(path)
    child = start_cli(path, root)
    wait_for_point(child)
    time.sleep(0.3)
    child.send_signal(number)
    try:
        rest = child.communicate(timeout=60)[0]
    finally:
        child.kill()
        child.communicate()
    if number == signal.SIGKILL:
        deadline = time.monotonic() + 10
        while servers_of(root) and time.monotonic() < deadline:
            time.sleep(0.05)
    else:
        assert child.returncode == 130, rest
        assert "run again to continue" in rest
    assert servers_of(root) == []
    stored = read_sweep(root / "tiny")
    assert 1 <= len(stored.points) < len(sweep.points)
    before = {p.directory.name: (p.directory / "result.json").stat().st_mtime_ns for p in stored.points}
    store, plan = prepare(sweep, root)
    assert len(plan.done) == sum(p.result.valid for p in stored.points)
    assert list((store.directory / ".attempts").iterdir()) == []
    for name, stamp in before.items():
        assert (store.directory / name / "result.json").stat().st_mtime_ns == stamp


def test_a_simulation_that_is_ended_leaves_no_worker(sweeps: Path, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        child = subprocess.Popen(
            (*CLI, str(sweeps / "dsv4-gb200-sglang.yaml"), "--simulate", "--results", str(tmp_path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            while not children_of(child.pid):
                time.sleep(0.05)
            time.sleep(0.7)
            workers = children_of(child.pid)
            child.send_signal(number)
            rest = child.communicate(timeout=60)[0]
        finally:
            child.kill()
            child.communicate()
        if number != signal.SIGKILL:
            assert child.returncode == 130, rest
            assert "Traceback" not in rest
            assert "run again to continue" in rest
        deadline = time.monotonic() + 10
        while any(runs(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(runs(pid) for pid in workers)


def children_of(parent: int) -> list[int]:
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if stat(pid)[1] == str(parent)]


def runs(pid: int) -> bool:
    return stat(pid)[0] not in ("", "Z", "X")


def stat(pid: int) -> tuple[str, str]:
    """State and parent of a process; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[1]


def test_a_worker_lost_behind_a_hanging_router_ends_the_point(
    write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router is stopped (it neither fails nor answers) and the decode worker killed."""
    monkeypatch.setattr("mtpbench.executors.local.STOP_GRACE_S", 1.0)
    changes = (SPLIT, ("requests_per_slot: 6", "requests_per_slot: 60"), ("decode: 2xTP4", "decode: 1xTP4"))
    sweep = load_sweep(write_sweep(*changes))
    store, plan = prepare(sweep, tmp_path)
    log, struck = Log(), []

    def strike(point: Point, progress: object) -> None:
        if not struck and getattr(progress, "ended", 0) > 2:
            for pid in servers_of(tmp_path):
                arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                role = arguments[arguments.index("--role") + 1]
                if role in ("router", "decode"):
                    os.kill(pid, signal.SIGSTOP if role == "router" else signal.SIGKILL)
                    struck.append(role)

    log.point_progress = strike  # type: ignore[method-assign]
    asyncio.run(
        run_live(RunPlan(ladders=plan.ladders[:1], done=()), store, log, asyncio.Event(), LocalSite())
    )
    assert sorted(struck) == ["decode", "router"]
    (result,) = log.results
    assert "server_died" in codes(result)
    assert "cut_off" in result.errors
    detail = next(reason.detail for reason in result.reasons if reason.code == "server_died")
    assert "decode-0 ended with killed by SIGKILL" in detail
    assert servers_of(tmp_path) == []
