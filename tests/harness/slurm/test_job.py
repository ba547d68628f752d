"""What runs inside a job: who owns a deployment, how far it is, how it ended, and where it goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_slurm
import pytest

from mtpbench.errors import InputError
from mtpbench.measure import measure
from mtpbench.records import Point, PointResult
from mtpbench.slurm.cluster_profile import ClusterProfile
from mtpbench.slurm.job import JobRun, job_file
from mtpbench.slurm.job_steps import StepOptions
from mtpbench.slurm.journal import Attempt, Finished, JobFile, Journal
from mtpbench.store import RawPoint, SweepStore, read_sweep
from mtpbench.sweep import Sweep, load_sweep

PROFILE: dict[str, Any] = {"time_limit": 10, "warn_s": 20}
COMMAND = "from mtpbench.cli import app; from mtpbench.cli.submit import job; app.command('j')(job); app()"


class Log:
    """Remembers, and calls `on_progress` and `on_finished` when told."""

    def __init__(self) -> None:
        self.results: list[PointResult] = []
        self.troubles: list[str] = []
        self.on_progress: Callable[[Point, Any], None] = lambda point, progress: None
        self.on_finished: Callable[[], None] = lambda: None

    def ladder_started(self, deployment: object, points: object) -> None: ...
    def point_started(self, point: Point) -> None: ...

    def point_progress(self, point: Point, progress: Any) -> None:
        self.on_progress(point, progress)

    def point_finished(self, point: Point, result: PointResult) -> None:
        self.results.append(result)
        self.on_finished()

    def trouble(self, message: str) -> None:
        self.troubles.append(message)


class Bench:
    """A sweep of one deployment, laid down as `submit` does, and runs of its job."""

    def __init__(self, sweep: Sweep, results: Path) -> None:
        self.sweep, self.results = sweep, results
        self.store = SweepStore(results, sweep.info)
        self.store.open()
        self.journal = Journal(self.store.directory)
        self.points = [p for p in sweep.points if p.arm.name == "mtp"]
        self.path = self.lay_down()

    def lay_down(self, *, again: bool = False) -> Path:
        return self.journal.write_job(
            JobFile(
                key=self.points[0].deployment_key,
                sweep=self.sweep.info,
                points=tuple(self.points),
                cluster="mine",
                profile=PROFILE,
                results=str(self.results),
                again=again,
            )
        )

    def run(
        self, log: Log, restart: int = 0, stop_when: asyncio.Event | None = None
    ) -> tuple[Finished, JobRun]:
        job = JobRun(self.path, {**os.environ, "SLURM_RESTART_COUNT": str(restart)})

        async def main() -> Finished:
            return await job.run(log, stop_when or asyncio.Event())

        return asyncio.run(main()), job

    def states(self) -> list[str]:
        return [self.store.state(point.id) for point in self.points]

    def stranger(self) -> Attempt:
        """Another attempt that took over."""
        return Attempt(
            key=self.points[0].deployment_key,
            job_id="99",
            restart=0,
            host="elsewhere",
            pid=1,
            nodes=("n7",),
            started_utc="2026-01-01T00:00:00.000+00:00",
        )

    def superseded(self) -> list[str]:
        return sorted(path.name for path in (self.store.directory / ".superseded").iterdir())


@pytest.fixture
def bench(fake: Path, write_sweep, tmp_path: Path) -> Bench:
    return Bench(
        load_sweep(write_sweep(("concurrency: [1, 2]", "concurrency: [1, 2, 3]"), ("speed: 5", "speed: 10"))),
        tmp_path / "results",
    )


@pytest.fixture
def slow_bench(fake: Path, write_sweep, tmp_path: Path) -> Bench:
    changes = (
        ("requests_per_slot: 6", "requests_per_slot: 25"),
        ("concurrency: [1, 2]", "concurrency: [1, 2, 3]"),
    )
    return Bench(load_sweep(write_sweep(*changes)), tmp_path / "results")


def test_a_job_measures_its_ladder_and_leaves_its_records(bench: Bench, fake: Path) -> None:
    finished, job = bench.run(Log())
    assert (finished.outcome, finished.points_left) == ("done", 0)
    assert finished.points_valid + finished.points_invalid == 3
    assert "missing" not in bench.states()
    assert bench.journal.owner(bench.points[0].deployment_key) == job.attempt
    assert bench.journal.finished(job.attempt) == finished
    progress = bench.journal.progress(job.attempt)
    assert progress is not None
    assert (progress.points_done, progress.points_left) == (3, 0)
    started = bench.journal.attempts(bench.points[0].deployment_key)
    assert [(one.name, one.nodes) for one in started] == [("41.0", ("n0", "n1", "n2", "n3"))]
    (stored, *_) = read_sweep(bench.store.directory).points
    assert stored.provenance.executor == "slurm"
    servers = bench.journal.attempt_directory(job.attempt) / "servers"
    assert list(servers.glob("*/aggregated-0.log"))
    assert not (bench.store.directory / "servers").exists()
    assert fake_slurm.living(fake) == []


def test_progress_is_written_while_load_runs(slow_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtpbench.progress.WRITE_EVERY_S", 0.0)
    slow_bench.points = slow_bench.points[:1]
    slow_bench.path = slow_bench.lay_down()
    seen = []

    def look(point: Point, progress: Any) -> None:
        (attempt,) = slow_bench.journal.attempts(point.deployment_key)
        seen.append(slow_bench.journal.progress(attempt))

    log = Log()
    log.on_progress = look
    slow_bench.run(log)
    last = seen[-1]
    assert last.point_id == slow_bench.points[0].id
    assert 0 < last.requests_ended <= last.requests_total
    assert last.output_tps > 0
    assert any(one.requests_ended < one.requests_total for one in seen)


def call_the_first_point_valid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may spoil any point; this one's result counts as good whatever the machine did."""

    def without_reasons(point: Point, raw: RawPoint) -> PointResult:
        result = measure(point, raw)
        return dataclasses.replace(result, reasons=()) if point == bench.points[0] else result

    monkeypatch.setattr("mtpbench.deployment_run.measure", without_reasons)


def test_a_stopped_job_leaves_the_rest_and_goes_on_where_it_stood(
    slow_bench: Bench, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The point that is cut off is kept, invalid, and measured again by the requeued job."""
    call_the_first_point_valid(slow_bench, monkeypatch)
    stop, log = asyncio.Event(), Log()

    def after_the_first(point: Point, progress: Any) -> None:
        if point == slow_bench.points[1] and progress.ended > 2:
            stop.set()

    log.on_progress = after_the_first
    finished, _ = slow_bench.run(log, stop_when=stop)
    assert finished.outcome == "stopped"
    assert (finished.points_valid, finished.points_left) == (1, 2)
    assert slow_bench.states() == ["valid", "invalid", "missing"]
    assert fake_slurm.living(fake) == []
    first = (slow_bench.store.directory / slow_bench.points[0].id / "result.json").stat().st_mtime_ns
    second, job = slow_bench.run(Log(), restart=1)
    assert job.attempt.name == "41.1"
    assert second.points_left == 0
    stamp = (slow_bench.store.directory / slow_bench.points[0].id / "result.json").stat().st_mtime_ns
    assert stamp == first
    assert slow_bench.superseded() == [f"{slow_bench.points[1].id}~0000"]


def test_a_requeued_job_that_measures_again_does_not_begin_again(bench: Bench) -> None:
    bench.run(Log())
    bench.lay_down(again=True)
    valid = bench.states().count("valid")
    log = Log()
    bench.run(log, restart=1)
    assert len(log.results) == 3 - valid
    other = JobRun(bench.path, {**os.environ, "SLURM_JOB_ID": "42"})
    assert len(other.prepare().points) == 3


def test_an_orphan_takes_no_place_and_ends(bench: Bench, fake: Path) -> None:
    log = Log()
    taken: list[int] = []

    def take_over() -> None:
        if not taken:
            taken.append(1)
            bench.journal.take_over(bench.stranger())

    log.on_finished = take_over
    finished, _ = bench.run(log)
    assert finished.outcome == "superseded"
    assert "attempt 99.0 on elsewhere has taken over" in str(finished.detail)
    assert len(log.results) == 2
    assert bench.states() == [bench.states()[0], "missing", "missing"]
    assert bench.superseded() == [f"{bench.points[1].id}~0000"]
    assert any("takes no place" in trouble for trouble in log.troubles)
    assert bench.journal.owner(bench.points[0].deployment_key) == bench.stranger()
    assert fake_slurm.living(fake) == []


def test_an_orphan_notices_under_load(slow_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtpbench.slurm.job.OWNER_EVERY_S", 0.05)
    monkeypatch.setattr("mtpbench.progress.WRITE_EVERY_S", 0.0)
    log = Log()

    def take_over(point: Point, progress: Any) -> None:
        if progress.ended == 0:
            return
        slow_bench.journal.take_over(slow_bench.stranger())

    log.on_progress = take_over
    finished, _ = slow_bench.run(log)
    assert finished.outcome == "superseded"
    assert "missing" in slow_bench.states()[0]
    assert slow_bench.superseded() == [f"{slow_bench.points[0].id}~0000"]


def test_an_earlier_run_that_wakes_up_late_leaves_its_successor_alone(bench: Bench) -> None:
    later = dataclasses.replace(bench.stranger(), job_id="41", restart=1)
    bench.journal.take_over(later)
    finished, job = bench.run(Log(), restart=0)
    assert finished.outcome == "superseded"
    assert bench.journal.owner(job.job.key) == later
    assert bench.states() == ["missing"] * 3


@pytest.mark.parametrize(
    ("state", "restarts", "outcome", "word"),
    [
        ("PENDING", 1, "superseded", "requeued the job"),
        ("RUNNING", 1, "superseded", "requeued the job"),
        ("COMPLETING", 0, "stopped", "ending the job"),
        ("CANCELLED", 0, "stopped", "ending the job"),
    ],
)
def test_servers_that_die_with_their_job_say_nothing_of_the_point(
    slow_bench: Bench, fake: Path, state: str, restarts: int, outcome: str, word: str
) -> None:
    """Slurm ends the steps first; nobody has taken over yet when the deaths are seen."""
    log = Log()

    def strike(point: Point, progress: Any) -> None:
        if progress.ended > 1 and (groups := fake_slurm.living(fake)):
            fake_slurm.set_job(fake, state, restarts)
            os.killpg(groups[0], signal.SIGKILL)

    log.on_progress = strike
    finished, _ = slow_bench.run(log)
    assert finished.outcome == outcome
    assert word in str(finished.detail)
    assert finished.points_invalid == 0
    assert slow_bench.states() == ["missing"] * 3


def test_a_deployment_that_never_starts_has_failed(fake: Path, write_sweep, tmp_path: Path) -> None:
    text = "speed: 5\n  faults: [{kind: exit_before_bind, value: 3}]"
    bench = Bench(load_sweep(write_sweep(("speed: 5", text))), tmp_path / "results")
    finished, job = bench.run(Log())
    assert finished.outcome == "failed"
    assert "no point was measured: start_failed" in str(finished.detail)
    assert "exit code 3" in str(finished.detail)
    assert (finished.points_valid, finished.points_invalid, finished.points_left) == (0, 2, 0)
    assert bench.states() == ["invalid", "invalid"]
    assert bench.journal.finished(job.attempt) == finished


def test_a_deployment_without_tokens_has_failed(fake: Path, write_sweep, tmp_path: Path) -> None:
    text = "speed: 5\n  faults: [{kind: http_503, probability: 1.0}]"
    bench = Bench(load_sweep(write_sweep(("speed: 5", text))), tmp_path / "results")
    finished, _ = bench.run(Log())
    assert finished.outcome == "failed"
    assert finished.points_invalid == 2


def test_what_can_not_run_in_its_allocation_is_written_down(bench: Bench, fake: Path) -> None:
    job = JobRun(bench.path, os.environ)
    job.profile = job.profile.model_copy(update={"network_interface": "ib7"})
    with pytest.raises(InputError, match="ib7"):
        asyncio.run(job.run(Log(), asyncio.Event()))
    finished = bench.journal.finished(job.attempt)
    assert finished is not None
    assert finished.outcome == "failed"
    assert "ib7" in str(finished.detail)


def test_outside_of_a_job_it_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no Slurm allocation"):
        JobRun(bench.path, {"PATH": os.environ["PATH"]})
    with pytest.raises(InputError, match="no job's file"):
        job_file(bench.path.with_name("other.json"))


def test_options_of_steps_come_from_the_profile() -> None:
    profile = ClusterProfile.model_validate(
        {
            **PROFILE,
            "gres": None,
            "python": "/venv/bin/python",
            "network_interface": "ib0",
            "container": {"image": "/i.sqsh", "mounts": ["/m:/m"], "flags": ["--container-writable"]},
        }
    )
    options = StepOptions.of(profile)
    assert (options.python, options.gres, options.interface) == ("/venv/bin/python", None, "ib0")
    assert (options.container, options.image, options.mounts) == (True, "/i.sqsh", ("/m:/m",))
    assert StepOptions.of(None).python == sys.executable


def start(bench: Bench) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-c", COMMAND, "j", str(bench.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sigterm_closes_the_point_and_ends_in_order(slow_bench: Bench, fake: Path) -> None:
    """What Slurm sends before the limit; the exit code is 0, the rest is for `submit`."""
    child = start(slow_bench)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        attempts = slow_bench.journal.attempts(slow_bench.points[0].deployment_key)
        progress = slow_bench.journal.progress(attempts[0]) if attempts else None
        if progress and progress.requests_ended > 2:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 0, said
    assert "stopped: " in said
    finished = slow_bench.journal.finished(attempts[0])
    assert finished is not None
    assert finished.outcome == "stopped"
    assert finished.points_left >= 1
    assert fake_slurm.living(fake) == []


def test_repeats_by_restart_are_jobs_with_servers_of_their_own(
    fake: Path, write_sweep, tmp_path: Path
) -> None:
    changes = (
        ("topologies:", "repeats: 2\nrestart: true\ntopologies:"),
        ("concurrency: [1, 2]", "concurrency: [2]"),
    )
    bench = Bench(load_sweep(write_sweep(*changes)), tmp_path / "results")
    both = bench.points
    keys = [point.deployment_key for point in both]
    for point in both:
        bench.points = [point]
        bench.path = bench.lay_down()
        finished, job = bench.run(Log())
        assert finished.points_left == 0
        assert bench.journal.owner(point.deployment_key) == job.attempt
    assert len({*keys}) == 2
    origins = [p.provenance for p in read_sweep(bench.store.directory).points]
    assert len({origin.server_start for origin in origins} - {None}) == 2
    assert all(bench.journal.owner(key) is not None for key in keys)


def test_a_failed_job_ends_with_another_code(fake: Path, write_sweep, tmp_path: Path) -> None:
    text = "speed: 5\n  faults: [{kind: exit_before_bind, value: 3}]"
    bench = Bench(load_sweep(write_sweep(("speed: 5", text))), tmp_path / "results")
    child = start(bench)
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 3, said
    assert "failed: 0 valid, 2 invalid, 0 left: no point was measured" in said


def test_a_run_inside_an_allocation_gives_the_same_record(fake: Path, write_sweep, tmp_path: Path) -> None:
    """`mtpbench run --executor slurm` in salloc, or anywhere in a job."""
    path, results = write_sweep(), tmp_path / "results"
    point = load_sweep(path).points[0]
    words = ("run", str(path), "--only", point.id, "--executor", "slurm", "--results", str(results))
    done = subprocess.run(
        (sys.executable, "-m", "mtpbench", *words), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr
    provenance = json.loads((results / "tiny" / point.id / "provenance.json").read_text())
    assert provenance["executor"] == "slurm"
    assert provenance["notes"][0].startswith("Slurm job 41 on n0, n1, n2, n3")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    refused = subprocess.run(
        (sys.executable, "-m", "mtpbench", *words),
        env=outside,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert "this is no Slurm allocation" in refused.stderr
