"""A job as it runs: one deployment's ladder, with records of its attempt, its progress and its end.

An attempt is one run of a job. It owns its deployment until another attempt takes over (Slurm requeued the
job, or it was submitted again); from then on its points take no place, and it ends. `run_live` measures, as
it does for `mtpbench run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mtpbench.errors import InputError, MtpbenchError, StoreError
from mtpbench.progress import (
    Observer,
    PointCounts,
    ProgressObserver,
    ProgressWriter,
    heartbeat,
    in_background,
    now_utc,
)
from mtpbench.records import Point, PointResult, Provenance
from mtpbench.redaction import Secrets
from mtpbench.run import RunPlan, plan_run, refuse_impossible, run_live
from mtpbench.slurm.allocation import allocation_here
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile
from mtpbench.slurm.executor import SlurmSite
from mtpbench.slurm.job_steps import StepOptions
from mtpbench.slurm.journal import Attempt, Finished, JobFile, Journal, Outcome
from mtpbench.store import RawPoint, SweepStore, read_point

STOP_SHARE = 0.7
"""Share of the time between the warning and the limit after which a run that still hangs is cancelled."""
FAILED_EXIT = 3
OWNER_EVERY_S = 5.0
"""Seconds between two reads of the owner's file while load runs."""


class Fence:
    """A fence tells whether an attempt still owns its deployment.

    `lost` is the reason why not, `outcome` the outcome of the attempt then.
    """

    def __init__(self, journal: Journal, attempt: Attempt, slurm: Slurm) -> None:
        self._journal, self._attempt, self._slurm = journal, attempt, slurm
        self.lost: str | None = None
        self.outcome: Outcome = "superseded"

    def holds(self) -> bool:
        """Returns whether the owner's file names this attempt; a file that can't be read proves nothing."""
        if self.lost is None:
            with contextlib.suppress(StoreError, OSError):
                owner = self._journal.owner(self._attempt.key)
                if owner is not None and owner.name != self._attempt.name:
                    self.lose_to(owner)
        return self.lost is None

    def lose_to(self, owner: Attempt) -> None:
        """Notes that another attempt owns the deployment now."""
        self.lost = f"attempt {owner.name} on {owner.host} has taken over"

    def is_alive_to_slurm(self) -> bool:
        """Returns whether Slurm still runs this attempt; True where Slurm does not answer.

        It is asked when something failed: the servers of a job that is being requeued or cancelled die first,
        and their deaths say nothing about them.
        """
        if not self.holds():
            return False
        result = self._slurm.query((), (self._attempt.job_id,))
        status = result.statuses.get(self._attempt.job_id) if result.answer == "ok" else None
        if status is None:
            return True
        if (status.restarts or 0) > self._attempt.restart or status.state in ("pending", "requeued"):
            self.lost = f"Slurm has requeued the job ({status.raw})"
        elif status.state not in ("running", "suspended", "unknown"):
            self.lost, self.outcome = f"Slurm is ending the job ({status.raw})", "stopped"
        return self.lost is None


class FencedStore(SweepStore):
    """A fenced store writes the points of one attempt; they take no place once it lost its deployment.

    Args:
        root: the results folder.
        job: the job that the attempt runs.
        fence: tells whether the attempt owns its deployment.
        stop: is set when it no longer does.
    """

    def __init__(self, root: Path, job: JobFile, fence: Fence, stop: asyncio.Event) -> None:
        super().__init__(root, job.sweep)
        self._fence, self._stop = fence, stop

    def write(
        self,
        point: Point,
        result: PointResult,
        provenance: Provenance,
        raw: RawPoint,
        logs: Mapping[str, bytes],
        *,
        superseded: bool = False,
    ) -> Path:
        """Writes a point, or writes it aside where another attempt owns the deployment."""
        # The cut-off point of a run that is stopping needs no further evidence.
        failed = not result.valid and not self._stop.is_set()
        held = self._fence.is_alive_to_slurm() if failed else self._fence.holds()
        if not held:
            self._stop.set()
        aside = superseded or not held
        return super().write(point, result, provenance, raw, logs, superseded=aside)


class JobRun:
    """A job run is one attempt of one job.

    Args:
        path: the job's file.
        environment: the environment of the batch script.

    Raises:
        InputError: this is no Slurm allocation.
        SchemaError: another version of mtpbench wrote the job's file.
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
        """Returns how long after a request to stop a run that still hangs is cancelled."""
        return self.profile.warn_s * STOP_SHARE

    def prepare(self) -> RunPlan:
        """Returns the plan of what is left to measure; prints nothing and starts nothing.

        Raises:
            SchemaError: another version of mtpbench wrote the results.
        """
        store = SweepStore(Path(self.job.results), self.job.sweep)
        store.attach()
        points = self.job.points
        if not self.job.again:
            return plan_run(points, store)
        measured = self._measured_by_this_job(store)
        remaining = [point for point in points if point.id not in measured]
        return replace(plan_run(remaining, store, again=True), done=tuple(sorted(measured)))

    async def run(self, observer: Observer, stop: asyncio.Event) -> Finished:
        """Takes the deployment over, measures what is left, and writes down how it ended.

        Args:
            observer: is notified of what happens.
            stop: ends the run; is also set when another attempt takes over.

        Raises:
            MtpbenchError: the run could not go on; the attempt's end is written down before.
        """
        if self._is_late():
            done = len(self.prepare().done)
            return self._finish(PointCounts(total=len(self.job.points), valid=done), stop)
        self.journal.take_over(self.attempt)
        counts = PointCounts(total=len(self.job.points), valid=0)
        try:
            plan = self.prepare()
            counts.valid = len(plan.done)
            await self._measure(plan, counts, observer, stop)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return self._finish(counts, stop, "what it was doing did not end in time, and was cancelled")
        except MtpbenchError as error:
            self._finish(counts, stop, str(error), failed=True)
            raise
        except Exception as error:
            self._finish(counts, stop, f"internal fault: {type(error).__name__}: {error}", failed=True)
            raise
        return self._finish(counts, stop)

    async def _measure(
        self, plan: RunPlan, counts: PointCounts, observer: Observer, stop: asyncio.Event
    ) -> None:
        """Measures what is left while this attempt owns its deployment, and writes its progress."""
        writer = ProgressWriter(self.journal.progress_path(self.attempt))
        written = ProgressObserver(writer, counts, observer, displaced=lambda: self.fence.lost)
        guarding = asyncio.create_task(self._guard(observer, stop))
        async with heartbeat(written), in_background(guarding):
            site = SlurmSite(self.allocation, StepOptions.of(self.profile))
            refuse_impossible(plan, site)
            store = FencedStore(Path(self.job.results), self.job, self.fence, stop)
            servers = self.journal.attempt_directory(self.attempt) / "servers"
            await run_live(plan, store, written, stop, site, servers)

    async def _guard(self, observer: Observer, stop: asyncio.Event) -> None:
        """Stops the run soon after another attempt has taken its deployment over."""
        while self.fence.holds():
            await asyncio.sleep(OWNER_EVERY_S)
        if not stop.is_set():
            observer.trouble(f"{self.fence.lost}: this attempt ends")
            stop.set()

    def _is_late(self) -> bool:
        """Returns whether a later run of the same job owns the deployment already."""
        owner = None
        with contextlib.suppress(StoreError):
            owner = self.journal.owner(self.attempt.key)
        if owner is None or owner.job_id != self.attempt.job_id or owner.restart <= self.attempt.restart:
            return False
        self.fence.lose_to(owner)
        return True

    def _measured_by_this_job(self, store: SweepStore) -> set[str]:
        """Returns the valid points of earlier runs of this job: a requeued job does not begin again."""
        starts = [
            attempt.started_utc for attempt in self.journal.attempts(self.job.key) if self._is_mine(attempt)
        ]
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
        self, counts: PointCounts, stop: asyncio.Event, detail: str | None = None, *, failed: bool = False
    ) -> Finished:
        """Writes down how the attempt ended, and returns it."""
        outcome, why = self._outcome(counts, stop, failed=failed)
        if detail is not None and self.job.points:
            detail = Secrets.of(self.job.points[0], os.environ).hide(detail)
        finished = Finished(
            outcome=outcome,
            ended_utc=now_utc(),
            points_valid=counts.valid,
            points_invalid=counts.invalid,
            points_left=counts.left,
            detail=detail or why,
        )
        self.journal.write_finished(self.attempt, finished)
        return finished

    def _outcome(
        self, counts: PointCounts, stop: asyncio.Event, *, failed: bool
    ) -> tuple[Outcome, str | None]:
        """Returns the outcome of the attempt, and why it is not simply `done`."""
        if self.fence.lost is not None:
            return self.fence.outcome, self.fence.lost
        if failed:
            return "failed", None
        if stop.is_set() and counts.left:
            return "stopped", "told to stop: at the time limit's warning, or cancelled"
        if counts.invalid and not counts.measured_valid:
            return "failed", f"no point was measured: {counts.reason}"
        return "done", f"of the invalid ones: {counts.reason}" if counts.invalid else None


def job_file(path: Path) -> Path:
    """Checks that a job's file exists, and returns its path.

    Raises:
        InputError: there is none.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: no job's file; `mtpbench submit` lays it down in results/<sweep>/.slurm/jobs"
        )
    return path
