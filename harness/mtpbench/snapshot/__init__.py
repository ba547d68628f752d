"""Pure: a snapshot of a sweep, as its files and perhaps Slurm tell it, and what follows from that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import Literal

from mtpbench.progress import RunProgress
from mtpbench.records import SweepInfo
from mtpbench.slurm.journal import Submission
from mtpbench.slurm.states import STALE_S, AttemptFiles, JobOutcome, JobStatus, judge_job
from mtpbench.store import StoredPoint

State = Literal["valid", "invalid", "unusable", "damaged", "other schema", "incomplete", "missing"]
"""`unusable`: stored as valid, with rates that no curve can hold. `incomplete`: its folder is there without
a result, which the store never leaves; a copy may."""

_ID = re.compile(r"(?P<arm>.+)_(?P<topology>[^_]+)_c(?P<c>\d+)(?:_q(?P<q>[^_]+))?_r(?P<r>\d+)_[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPoint:
    """A planned point, as far as its id tells: all that a results folder says of what is missing."""

    id: str
    arm: str
    topology: str = ""
    concurrency: int | None = None
    rate_rps: str | None = None
    repeat: int = 0

    @classmethod
    def of(cls, point_id: str) -> PlannedPoint:
        """The parts of an id; one of another form is its own arm."""
        parts = _ID.fullmatch(point_id)
        if parts is None:
            return cls(id=point_id, arm=point_id)
        return cls(
            id=point_id,
            arm=parts["arm"],
            topology=parts["topology"],
            concurrency=int(parts["c"]),
            rate_rps=parts["q"],
            repeat=int(parts["r"]),
        )

    @property
    def rung(self) -> tuple[object, ...]:
        """Equal for points under the same load on the same topology, whatever their arm."""
        return (self.topology, self.concurrency, self.rate_rps)

    @property
    def label(self) -> str:
        """`c16`, `c16 q4 repeat 1`."""
        if self.concurrency is None:
            return self.id
        rate = f" q{self.rate_rps}" if self.rate_rps else ""
        return f"c{self.concurrency}{rate}" + (f" repeat {self.repeat}" if self.repeat else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why what lies in a point's place can't be used.

    Args:
        reason: in a few words.
        file: the name of the file at fault, where one is.
        message: the whole, with what can be done.
    """

    reason: str
    file: str | None = None
    message: str = ""

    @property
    def label(self) -> str:
        """`not JSON (point.json)`."""
        return f"{self.reason} ({self.file})" if self.file else self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPoint:
    """A planned point and what lies in its place.

    Args:
        stored: where it could be read.
        problem: why it could not.
        landed_s: when its result was written, seconds since 1970 by the file system's clock.
    """

    planned: PlannedPoint
    state: State
    stored: StoredPoint | None = None
    problem: Problem | None = None
    landed_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStart:
    """The newest start of a deployment on this folder's behalf.

    Args:
        grew_s: when one of its logs was last written to.
    """

    key: str
    started_s: float
    grew_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds the folder's lock, as far as this machine can tell.

    Args:
        held: None where this machine can't tell; False also where the run is on another machine.
        pid: as the lock's file names it.
    """

    held: bool | None
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A sweep at one moment.

    Args:
        simulated: whether it is known to be, by its sweep file or its points.
        trouble: what could not be read, besides points; one sentence each.
        points: in the order of the plan.
        begun_s: when the last run began (it writes sweep.json then).
        servers: the newest start since then.
        writing: ids of points that are being stored just now.
        run: what a run that is no Slurm job last said; there after its end only where it was killed.
        run_here: whether that run is, or was, on this machine.
        submissions: the newest to Slurm of each deployment that was ever submitted, by its key.
        jobs: what the attempts that own the deployments left, by key.
        statuses: what Slurm says of all jobs; None where it was not asked, or did not answer.
        slurm_trouble: why it could not be asked.
    """

    info: SweepInfo
    points: tuple[SeenPoint, ...]
    now_s: float
    simulated: bool = False
    trouble: tuple[str, ...] = ()
    begun_s: float | None = None
    holder: Holder = Holder(held=None)
    servers: ServerStart | None = None
    writing: tuple[str, ...] = ()
    run: RunProgress | None = None
    run_here: bool = False
    submissions: Mapping[str, Submission] = field(default_factory=dict)
    jobs: Mapping[str, AttemptFiles] = field(default_factory=dict)
    statuses: Mapping[str, JobStatus] | None = None
    slurm_trouble: str | None = None

    def having(self, *states: State) -> list[SeenPoint]:
        """The points in some states."""
        return [point for point in self.points if point.state in states]

    @cached_property
    def live_jobs(self) -> tuple[AttemptFiles, ...]:
        """Attempts that have not ended and were heard of lately."""
        return tuple(files for files in self.jobs.values() if _is_live(files, self.now_s))

    @property
    def unheard(self) -> tuple[Submission, ...]:
        """Submissions of deployments that no attempt was made of, oldest first."""
        waiting = {
            submission.number: submission
            for key, submission in self.submissions.items()
            if key not in self.jobs or self.jobs[key].attempt.job_id != submission.task_id(key)
        }
        return tuple(waiting[number] for number in sorted(waiting))

    @cached_property
    def outcomes(self) -> Mapping[str, JobOutcome]:
        """What became of each deployment that was ever submitted, by key, where Slurm was asked."""
        now = datetime.fromtimestamp(self.now_s, UTC)
        return {
            key: judge_job(key, submission, self.jobs.get(key), self.statuses, now)
            for key, submission in self.submissions.items()
        }

    @cached_property
    def live_run(self) -> RunProgress | None:
        """What the run says that is known to go on: it was heard of lately, or is here and holds the lock.

        A run of this machine that holds no lock has ended, however lately it was heard of.
        """
        run, holder = self.run, self.holder
        if run is None or (self.run_here and holder.held is False):
            return None
        held = self.run_here and holder.held is True and holder.pid == run.pid
        return run if held or self.now_s - seconds_of(run.time_utc) < STALE_S else None

    @property
    def at_work(self) -> bool:
        """Whether something is known to be measuring."""
        return self.holder.held is True or bool(self.live_jobs) or self.live_run is not None

    @property
    def over(self) -> bool:
        """Whether every planned point has a readable result and nothing is known to go on."""
        measured = len(self.having("valid", "invalid", "unusable")) == len(self.points)
        return bool(self.points) and measured and not self.at_work

    @cached_property
    def running(self) -> Mapping[str, bool]:
        """Ids of points under load; True where a run or a job says so, False where it only follows."""
        running = {
            files.progress.point_id: True
            for files in self.live_jobs
            if files.progress and files.progress.point_id
        }
        if self.live_run is not None:
            running |= {self.live_run.point_id: True} if self.live_run.point_id else {}
        elif self.holder.held and (point := next_of_ladder(self.points, self.servers)) is not None:
            running.setdefault(point.planned.id, False)
        return running

    @property
    def changed_s(self) -> float | None:
        """When the newest result was written."""
        return max((point.landed_s for point in self.points if point.landed_s is not None), default=None)


def next_of_ladder(points: Sequence[SeenPoint], servers: ServerStart | None) -> SeenPoint | None:
    """The point that the servers' ladder has come to: the first without a result since they started.

    A ladder goes up by repeat and concurrency and leaves out what is valid already. `--only` and `--again`
    are in no file, so this is what most likely runs, not what is known to.
    """
    if servers is None:
        return None
    name = servers.key.rpartition("_")[0]
    ladder = [point for point in points if f"{point.planned.arm}_{point.planned.topology}" == name]
    exact = [
        point for point in ladder if point.stored is None or point.stored.point.deployment_key == servers.key
    ]
    left = [
        point
        for point in exact
        if point.state != "valid" and (point.landed_s is None or point.landed_s < servers.started_s)
    ]
    return min(left, key=lambda point: (point.planned.repeat, point.planned.concurrency or 0), default=None)


def _is_live(files: AttemptFiles, now_s: float) -> bool:
    if files.finished is not None:
        return False
    heard = files.progress.time_utc if files.progress is not None else files.attempt.started_utc
    return now_s - seconds_of(heard) < STALE_S


def seconds_of(time_utc: str) -> float:
    """An ISO 8601 time as seconds since 1970; 0 where it is none."""
    try:
        return datetime.fromisoformat(time_utc).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLeft:
    """How long what is missing may take, from how long the measured points of the same load took.

    Args:
        seconds: of load, for the points whose load was measured before; in several jobs side by side, those
            of the longest ladder.
        points: how many of the points left that covers.
        unknown: how many it does not: nobody has measured their concurrency yet.
        side_by_side: whether ladders run in jobs of their own.
    """

    seconds: float
    points: int
    unknown: int
    side_by_side: bool


def time_left(snapshot: Snapshot) -> TimeLeft | None:
    """The time left; None where nothing is left, nothing tells, or time passes differently.

    A virtual clock's points are simulated side by side, so their durations do not add up.
    """
    waiting = snapshot.having("missing", "damaged", "incomplete")
    if not waiting or any(
        point.stored and point.stored.result.clock == "virtual" for point in snapshot.points
    ):
        return None
    ladders: dict[tuple[str, str], float] = {}
    covered = 0
    for point in waiting:
        if (duration_s := _duration_like(point, snapshot.points)) is None:
            continue
        covered += 1
        if point.planned.id in snapshot.running:
            # Points of a ladder follow each other, so this one began about when the last one was stored.
            begun_s = max(snapshot.changed_s or 0.0, snapshot.servers.started_s if snapshot.servers else 0.0)
            duration_s = max(0.0, duration_s - (snapshot.now_s - begun_s))
        key = (point.planned.arm, point.planned.topology)
        ladders[key] = ladders.get(key, 0.0) + duration_s
    if not covered:
        return None
    side_by_side = bool(snapshot.jobs)
    seconds = max(ladders.values()) if side_by_side else sum(ladders.values())
    return TimeLeft(
        seconds=seconds, points=covered, unknown=len(waiting) - covered, side_by_side=side_by_side
    )


def _duration_like(point: SeenPoint, points: Sequence[SeenPoint]) -> float | None:
    """The mean duration of the same load in this arm, else in any."""
    same = [other for other in points if other.planned.rung == point.planned.rung and other.stored]
    own = [other for other in same if other.planned.arm == point.planned.arm]
    durations = [duration_s for other in own or same if (duration_s := duration_of(other)) is not None]
    return fmean(durations) if durations else None


def duration_of(point: SeenPoint) -> float | None:
    """Wall seconds that a point took from the start of its load to its end; None where it sent nothing."""
    if point.stored is None or not point.stored.result.requests:
        return None
    origin = point.stored.provenance
    taken = seconds_of(origin.finished_utc) - seconds_of(origin.started_utc)
    return taken if taken > 0 else None
