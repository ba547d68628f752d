"""What runs inside a job: one deployment's ladder, with records of who runs it, how far it is, how it ended.

An attempt is one run of a job. It owns its deployment until another attempt takes over (Slurm requeued the
job, or it was submitted again); from then on its points take no place, and it ends. `run_live` does the rest,
as it does for `mtpbench run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mtpbench.errors import InputError, MtpbenchError, StoreError
from mtpbench.executors.slurm import SlurmSite
from mtpbench.executors.steps import StepOptions, ask
from mtpbench.ladder import Observer, now_utc
from mtpbench.load.client import Progress
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.run import RunPlan, plan_run, refuse_impossible, run_live
from mtpbench.slurm.allocation import Allocation
from mtpbench.slurm.cluster import ClusterProfile
from mtpbench.slurm.commands import Slurm, clean
from mtpbench.slurm.fence import Fence, FencedStore, Outcome
from mtpbench.slurm.journal import Attempt, Finished, JobProgress, Journal
from mtpbench.store import SweepStore, read_point
from mtpbench.validity import CUT_OFF

PROGRESS_EVERY_S = 1.0
HEARTBEAT_S = 10.0
"""A job that says nothing for a minute is doubted; servers can take half an hour to start."""
STOP_SHARE = 0.7
"""Of the time between the warning and the limit: then what still hangs is cancelled."""
FAILED_EXIT = 3


def allocation_here(environment: Mapping[str, str]) -> Allocation:
    """The allocation that this process runs in.

    Raises:
        InputError: it runs in none.
        RunError: Slurm does not answer.
    """
    asking = clean(environment)
    return Allocation.from_environment(environment, lambda words: ask(words, asking))


def step_options(profile: ClusterProfile | None) -> StepOptions:
    """What a cluster's profile says of how processes start; without one, Slurm's own ways."""
    if profile is None:
        return StepOptions(python=sys.executable)
    container = profile.container
    return StepOptions(
        python=profile.python or sys.executable,
        gres=profile.gres,
        client_nodes=profile.client_nodes,
        mpi=profile.mpi,
        interface=profile.network_interface,
        container=container is not None,
        image=container.image if container else None,
        mounts=tuple(container.mounts) if container else (),
        container_flags=tuple(container.flags) if container else (),
    )


@dataclass(kw_only=True, slots=True)
class Tally:
    """Points of a job by how they stand: valid before it began, and as it measured them."""

    total: int
    valid: int
    invalid: int = 0
    measured_valid: int = 0
    reason: str | None = None

    def add(self, result: PointResult) -> None:
        """Count a measured point; one that was cut off is still to be measured."""
        if result.valid:
            self.valid += 1
            self.measured_valid += 1
        elif CUT_OFF not in {reason.code for reason in result.reasons}:
            self.invalid += 1
            first = result.reasons[0]
            self.reason = f"{first.code}: {first.detail.splitlines()[0] if first.detail else ''}"

    @property
    def left(self) -> int:
        """Points that have to be measured yet."""
        return self.total - self.valid - self.invalid


class ProgressObserver(ABC):
    """Writes what is being done, about once a second, and passes everything on; where to is a subclass's.

    Args:
        tally: what is counted.
        inner: told the same.
    """

    def __init__(self, tally: Tally, inner: Observer) -> None:
        self._tally, self._inner = tally, inner
        self._now = JobProgress(time_utc=now_utc(), point_id=None, stage="starting")
        self._written, self._between = 0.0, "between points"
        self.simulated: bool | None = None

    @abstractmethod
    def write(self, progress: JobProgress) -> None:
        """Write down what is being done; what goes wrong with that is no reason to end."""

    def ladder_started(self, deployment: Deployment | None, ladder: Sequence[Point]) -> None:
        """Servers are being started; on the virtual clock there are none."""
        stage = "waiting for the servers" if deployment is not None else "simulating"
        self.simulated = any(point.simulated for point in ladder)
        self._between = "between points" if deployment is not None else stage
        self._say(JobProgress(time_utc=now_utc(), point_id=None, stage=stage))
        self._inner.ladder_started(deployment, ladder)

    def point_started(self, point: Point) -> None:
        """Load begins."""
        self._say(JobProgress(time_utc=now_utc(), point_id=point.id))
        self._inner.point_started(point)

    def point_progress(self, point: Point, progress: Progress) -> None:
        """Load goes on; once a second is often enough for a file."""
        output_tps = progress.output_tokens / progress.elapsed_s if progress.elapsed_s > 0 else None
        self._now = JobProgress(
            time_utc=now_utc(),
            point_id=point.id,
            requests_ended=progress.ended,
            requests_total=progress.total,
            output_tps=output_tps,
        )
        if time.monotonic() - self._written >= PROGRESS_EVERY_S:
            self.beat()
        self._inner.point_progress(point, progress)

    def point_finished(self, point: Point, result: PointResult) -> None:
        """A point is stored."""
        self._tally.add(result)
        self._say(JobProgress(time_utc=now_utc(), point_id=None, stage=self._between))
        self._inner.point_finished(point, result)

    def trouble(self, message: str) -> None:
        """Something that the run survives."""
        self._inner.trouble(message)

    def beat(self) -> None:
        """Write what is going on, with the time."""
        self._say(replace(self._now, time_utc=now_utc()))

    def _say(self, progress: JobProgress) -> None:
        self._now, self._written = progress, time.monotonic()
        done = self._tally.valid + self._tally.invalid
        self.write(replace(progress, points_done=done, points_left=self._tally.left))


class JobObserver(ProgressObserver):
    """Writes what a job is doing into its progress file, and passes everything on.

    Args:
        journal: where to.
        attempt: whose progress it is.
        tally: what is counted.
        guard: the fence, looked at while load runs, and what is set when it is lost.
        inner: told the same.
    """

    def __init__(
        self,
        journal: Journal,
        attempt: Attempt,
        tally: Tally,
        guard: tuple[Fence, asyncio.Event],
        inner: Observer,
    ) -> None:
        super().__init__(tally, inner)
        self._journal, self._attempt = journal, attempt
        self._fence, self._stop = guard

    def write(self, progress: JobProgress) -> None:
        """Into the attempt's own file."""
        try:
            self._journal.write_progress(self._attempt, progress)
        except StoreError as error:
            # Points are what counts: they say it themselves when the disk is full.
            self._inner.trouble(str(error))

    def point_finished(self, point: Point, result: PointResult) -> None:
        """A point is stored; beside its place where another attempt owns that, and then it is not counted."""
        if self._fence.lost is None:
            super().point_finished(point, result)
            return
        self._inner.trouble(f"{self._fence.lost}: this attempt ends, and this point takes no place")
        self._say(JobProgress(time_utc=now_utc(), point_id=None, stage="between points"))
        self._inner.point_finished(point, result)

    def beat(self) -> None:
        """Write what is going on, with the time; and look whether this attempt still owns its deployment."""
        super().beat()
        if not self._fence.holds_now_and_then() and not self._stop.is_set():
            self._inner.trouble(f"{self._fence.lost}: this attempt ends")
            self._stop.set()


class JobRun:
    """One attempt of one job.

    Args:
        path: the job's file.
        environment: of the batch script.

    Raises:
        InputError: this is no Slurm allocation.
        StoreError: the job's file can't be read.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.journal = Journal(path.resolve().parent.parent.parent)
        self.job = self.journal.read_job(path)
        self.profile = ClusterProfile.model_validate(dict(self.job.profile))
        self.allocation = allocation_here(environment)
        self.slurm = Slurm(environment)
        self.attempt = Attempt(
            key=self.job.key,
            job_id=self.allocation.job_id,
            restart=self.allocation.restart,
            host=socket.gethostname(),
            pid=os.getpid(),
            nodes=self.allocation.nodes,
            started_utc=now_utc(),
        )
        self.fence = Fence(self.journal, self.attempt, self.slurm)

    @property
    def stop_patience_s(self) -> float:
        """How long after a request to stop what still hangs is cancelled."""
        return self.profile.warn_s * STOP_SHARE

    def prepare(self) -> RunPlan:
        """What is left to measure; shows nothing and starts nothing.

        Raises:
            SchemaError: another version of mtpbench wrote the results.
        """
        store = SweepStore(Path(self.job.results), self.job.sweep)
        store.attach()
        points = self.job.points
        if not self.job.again:
            return plan_run(points, store)
        mine = self._measured_by_this_job(store)
        left = [point for point in points if point.id not in mine]
        return replace(plan_run(left, store, again=True), done=tuple(sorted(mine)))

    async def run(self, observer: Observer, stop: asyncio.Event) -> Finished:
        """Take the deployment over, measure what is left, and write down how it ended.

        Args:
            observer: told what happens.
            stop: ends it; set too when another attempt takes over.

        Raises:
            MtpbenchError: it could not go on; that is written down before.
        """
        if self._is_late():
            done = len(self.prepare().done)
            return self._finish(Tally(total=len(self.job.points), valid=done), stop)
        self.journal.take_over(self.attempt)
        tally = Tally(total=len(self.job.points), valid=0)
        watcher = JobObserver(self.journal, self.attempt, tally, (self.fence, stop), observer)
        beating = asyncio.create_task(beat_on(watcher))
        try:
            plan = self.prepare()
            tally.valid = len(plan.done)
            site = SlurmSite(self.allocation, step_options(self.profile))
            refuse_impossible(plan, site)
            store = FencedStore(Path(self.job.results), self.job, self.fence, stop)
            servers = self.journal.attempt_directory(self.attempt) / "servers"
            await run_live(plan, store, watcher, stop, site, servers)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return self._finish(tally, stop, "what it was doing did not end in time, and was cancelled")
        except MtpbenchError as error:
            self._finish(tally, stop, str(error), failed=True)
            raise
        except Exception as error:
            self._finish(tally, stop, f"internal fault: {type(error).__name__}: {error}", failed=True)
            raise
        finally:
            beating.cancel()
        return self._finish(tally, stop)

    def _is_late(self) -> bool:
        """Whether a later run of the same job owns the deployment already: this one woke up too late."""
        owner = None
        with contextlib.suppress(StoreError):
            owner = self.journal.owner(self.attempt.key)
        if owner is None or owner.job_id != self.attempt.job_id or owner.restart <= self.attempt.restart:
            return False
        self.fence.lost = f"attempt {owner.name} on {owner.host} has taken over"
        return True

    def _measured_by_this_job(self, store: SweepStore) -> set[str]:
        """Valid points that an earlier run of this job measured: a requeued job does not begin again."""
        starts = [one.started_utc for one in self.journal.attempts(self.job.key) if self._is_mine(one)]
        if not starts:
            return set()
        first = min(map(datetime.fromisoformat, starts))
        return {
            point.id
            for point in self.job.points
            if store.state(point.id) == "valid"
            and datetime.fromisoformat(read_point(store.directory / point.id).provenance.started_utc) >= first
        }

    def _is_mine(self, attempt: Attempt) -> bool:
        return attempt.job_id == self.attempt.job_id and attempt.restart < self.attempt.restart

    def _finish(
        self, tally: Tally, stop: asyncio.Event, detail: str | None = None, *, failed: bool = False
    ) -> Finished:
        outcome, why = self._outcome(tally, stop, failed=failed)
        finished = Finished(
            outcome=outcome,
            ended_utc=now_utc(),
            points_valid=tally.valid,
            points_invalid=tally.invalid,
            points_left=tally.left,
            detail=detail or why,
        )
        self.journal.write_finished(self.attempt, finished)
        return finished

    def _outcome(self, tally: Tally, stop: asyncio.Event, *, failed: bool) -> tuple[Outcome, str | None]:
        if self.fence.lost is not None:
            return self.fence.outcome, self.fence.lost
        if failed:
            return "failed", None
        if stop.is_set() and tally.left:
            return "stopped", "told to stop: at the time limit's warning, or cancelled"
        if tally.invalid and not tally.measured_valid:
            return "failed", f"no point was measured: {tally.reason}"
        return "done", f"of the invalid ones: {tally.reason}" if tally.invalid else None


async def beat_on(watcher: ProgressObserver) -> None:
    """Let an observer say every few seconds that it lives, until this is cancelled."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        watcher.beat()


def job_file(path: Path) -> Path:
    """The path of a job's file, checked.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no job's file; `mtpbench submit` lays it down in results/<sweep>/.slurm/jobs"
        )
    return path
