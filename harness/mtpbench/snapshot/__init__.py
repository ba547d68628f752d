"""Pure: the snapshot of a sweep from its files, and from Slurm where that is asked, and what follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import Literal

from mtpbench.progress import RunProgress
from mtpbench.records import SweepInfo, load_label
from mtpbench.slurm.journal import Submission
from mtpbench.slurm.states import STALE_S, AttemptFiles, JobOutcome, JobStatus, judge_job
from mtpbench.store import StoredPoint

State = Literal["valid", "invalid", "unusable", "damaged", "other schema", "missing"]
"""`unusable`: stored as valid, with rates that no curve can hold. `damaged`: what the store calls that."""

_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_ID = re.compile(
    rf"(?P<arm>.+)_(?P<topology>[^_]+)_c(?P<c>\d+)(?:_q(?P<q>{_NUMBER}))?_r(?P<r>\d+)(?:_s(?P<s>\d+))?"
    r"_[0-9a-f]{8}"
)
_KEY = re.compile(r"(?P<arm>.+)_(?P<topology>\d+x[^_]+)(?:_s(?P<s>\d+))?_[0-9a-f]{8}")
Ladder = tuple[str, str, int]
"""Arm, topology and number of the start that serves it: equal for the points of one ladder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPoint:
    """A planned point, read from its id: a results folder holds no more of a missing point."""

    id: str
    arm: str
    topology: str = ""
    concurrency: int | None = None
    rate_rps: str | None = None
    repeat: int = 0
    launch: int = 0

    @classmethod
    def of(cls, point_id: str) -> PlannedPoint:
        """Parses an id; an id of another form is its own arm."""
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
            launch=int(parts["s"] or 0),
        )

    @property
    def ladder(self) -> Ladder:
        """The ladder that it stands in."""
        return (self.arm, self.topology, self.launch)

    @property
    def rung(self) -> tuple[object, ...]:
        """Equal for points under the same load on the same topology, whatever their arm."""
        return (self.topology, self.concurrency, self.rate_rps)

    @property
    def label(self) -> str:
        """A short name such as `c16` or `4/s cap 16 repeat 1`."""
        if self.concurrency is None:
            return self.id
        rate_rps = None if self.rate_rps is None else float(self.rate_rps)
        label = load_label(self.concurrency, rate_rps, form="mark")
        return label + (f" repeat {self.repeat}" if self.repeat else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A problem says why the files in a point's place can't be used.

    Args:
        reason: a few words.
        file: the name of the file at fault; None where it is none.
        message: the whole message, with what can be done.
    """

    reason: str
    file: str | None = None
    message: str = ""

    @property
    def label(self) -> str:
        """The reason with its file, such as `not JSON (point.json)`."""
        return f"{self.reason} ({self.file})" if self.file else self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPoint:
    """A planned point and what is stored in its place.

    Args:
        stored: the stored point, where it could be read.
        problem: why it could not be read.
        landed_s: when its result was written, seconds since 1970 by the file system's clock.
    """

    planned: PlannedPoint
    state: State
    stored: StoredPoint | None = None
    problem: Problem | None = None
    landed_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStart:
    """The newest start of a deployment by a run on this folder; times are seconds since 1970.

    Args:
        key: of the deployment.
        started_s: when it was started.
        grew_s: when one of its logs was written last.
    """

    key: str
    started_s: float
    grew_s: float

    @property
    def ladder(self) -> Ladder:
        """The ladder that it serves; a key of another form is its own arm."""
        parts = _KEY.fullmatch(self.key)
        return (self.key, "", 0) if parts is None else (parts["arm"], parts["topology"], int(parts["s"] or 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The holder of the folder's lock, as far as this machine can tell.

    Args:
        held: None where this machine can't tell; False also where the run is on another machine.
        pid: the process that the lock's file names.
    """

    held: bool | None
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot is the state of a sweep at one moment.

    Args:
        points: in the order of the plan.
        now_s: that moment, seconds since 1970.
        simulated: whether its sweep file or its points say that it is simulated.
        trouble: messages on files that could not be read, besides those of points.
        begun_s: when the last run began (it writes sweep.json then).
        servers: the newest start since then.
        writing: ids of points that are being stored now.
        run: the progress of a run that is no Slurm job; after the run's end only where it was killed.
        run_here: whether that run is, or was, on this machine.
        submissions: the newest to Slurm of each deployment that was ever submitted, by its key.
        jobs: the files of the attempts that own the deployments, by key.
        unread_jobs: keys of deployments of whose jobs a file can't be read.
        unread_submissions: whether a submission can't be read: there may be jobs that nobody here knows.
        statuses: Slurm's status of every job; None where Slurm was not asked, or did not answer.
        slurm_trouble: why Slurm could not be asked.
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
    unread_jobs: frozenset[str] = frozenset()
    unread_submissions: bool = False
    statuses: Mapping[str, JobStatus] | None = None
    slurm_trouble: str | None = None

    def having(self, *states: State) -> list[SeenPoint]:
        """Returns the points in any of some states."""
        return [point for point in self.points if point.state in states]

    @cached_property
    def live_jobs(self) -> tuple[AttemptFiles, ...]:
        """The files of attempts that have not ended and wrote their progress lately."""
        return tuple(files for files in self.jobs.values() if _is_live(files, self.now_s))

    @property
    def unheard(self) -> tuple[Submission, ...]:
        """Submissions with a deployment whose job has begun no attempt, oldest first."""
        waiting = {
            submission.number: submission
            for key, submission in self.submissions.items()
            if key not in self.jobs or self.jobs[key].attempt.job_id != submission.task_id(key)
        }
        return tuple(waiting[number] for number in sorted(waiting))

    @cached_property
    def outcomes(self) -> Mapping[str, JobOutcome]:
        """The outcome of each deployment that was ever submitted, by key; for a reader that asks Slurm."""
        now = datetime.fromtimestamp(self.now_s, UTC)
        return {
            key: judge_job(
                key, submission, self.jobs.get(key), self.statuses, now, unread=key in self.unread_jobs
            )
            for key, submission in self.submissions.items()
        }

    @cached_property
    def live_run(self) -> RunProgress | None:
        """The progress of a run that goes on: it is recent, or the run is on this machine and holds the lock.

        A run of this machine that holds no lock has ended, however recent its progress is.
        """
        run, holder = self.run, self.holder
        if run is None or (self.run_here and holder.held is False):
            return None
        held = self.run_here and holder.held is True and holder.pid == run.pid
        return run if held or self.now_s - seconds_of(run.time_utc) < STALE_S else None

    @property
    def at_work(self) -> bool:
        """Whether a run or a job is known to be measuring."""
        return self.holder.held is True or bool(self.live_jobs) or self.live_run is not None

    @property
    def over(self) -> bool:
        """Whether every planned point has a readable result and nothing is at work."""
        measured = len(self.having("valid", "invalid", "unusable")) == len(self.points)
        return bool(self.points) and measured and not self.at_work

    @cached_property
    def running(self) -> Mapping[str, bool]:
        """Ids of points under load; True where a run or a job says so, False where it is only inferred."""
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
    """Returns the point that most likely runs: the first of the ladder without a result since its start.

    A ladder rises by repeat and concurrency and leaves out what is valid already. `--only` and `--again`
    are in no file, so this is likely, not certain.
    """
    if servers is None:
        return None
    waiting = [
        point
        for point in points
        if point.planned.ladder == servers.ladder
        and (point.stored is None or point.stored.point.deployment_key == servers.key)
        and point.state != "valid"
        and (point.landed_s is None or point.landed_s < servers.started_s)
    ]
    return min(
        waiting, key=lambda point: (point.planned.repeat, point.planned.concurrency or 0), default=None
    )


def _is_live(files: AttemptFiles, now_s: float) -> bool:
    if files.finished is not None:
        return False
    last_sign_utc = files.progress.time_utc if files.progress is not None else files.attempt.started_utc
    return now_s - seconds_of(last_sign_utc) < STALE_S


def seconds_of(time_utc: str) -> float:
    """Returns an ISO 8601 time as seconds since 1970; 0 where the text is no time."""
    try:
        return datetime.fromisoformat(time_utc).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLeft:
    """The time left for the missing points, from the durations of measured points under the same load.

    Args:
        seconds: of load, for points whose load was measured before; where jobs run side by side, those of
            the longest ladder.
        points: the number of missing points that `seconds` covers.
        unknown: the number of the others: their concurrency is not measured yet.
        side_by_side: whether ladders run in jobs of their own.
    """

    seconds: float
    points: int
    unknown: int
    side_by_side: bool


def time_left(snapshot: Snapshot) -> TimeLeft | None:
    """Estimates the time left; None where nothing is missing, or no measured point is under the same load.

    None too on a virtual clock: its points are simulated side by side, so their durations do not add up.
    """
    waiting = snapshot.having("missing", "damaged")
    if not waiting or any(
        point.stored and point.stored.result.clock == "virtual" for point in snapshot.points
    ):
        return None
    ladders: dict[Ladder, float] = {}
    covered, durations = 0, _durations(snapshot.points)
    for point in waiting:
        if (like := durations.get((*point.planned.rung, point.planned.arm))) is None:
            like = durations.get(point.planned.rung)
        if like is None:
            continue
        duration_s = fmean(like)
        covered += 1
        if point.planned.id in snapshot.running:
            # The points of a ladder run one after another: this one began about when the last was stored.
            begun_s = max(snapshot.changed_s or 0.0, snapshot.servers.started_s if snapshot.servers else 0.0)
            duration_s = max(0.0, duration_s - (snapshot.now_s - begun_s))
        ladders[point.planned.ladder] = ladders.get(point.planned.ladder, 0.0) + duration_s
    if not covered:
        return None
    side_by_side = bool(snapshot.jobs)
    seconds = max(ladders.values()) if side_by_side else sum(ladders.values())
    return TimeLeft(
        seconds=seconds, points=covered, unknown=len(waiting) - covered, side_by_side=side_by_side
    )


def _durations(points: Sequence[SeenPoint]) -> Mapping[tuple[object, ...], Sequence[float]]:
    """Returns the durations of points by their load, and by their load and arm."""
    durations: dict[tuple[object, ...], list[float]] = {}
    for point in points:
        if (duration_s := duration_of(point)) is not None:
            for key in (point.planned.rung, (*point.planned.rung, point.planned.arm)):
                durations.setdefault(key, []).append(duration_s)
    return durations


def duration_of(point: SeenPoint) -> float | None:
    """Returns the wall seconds from the start of a point's load to its end; None where it sent nothing."""
    if point.stored is None or not point.stored.result.requests:
        return None
    origin = point.stored.provenance
    duration_s = seconds_of(origin.finished_utc) - seconds_of(origin.started_utc)
    return duration_s if duration_s > 0 else None
