"""The progress of a run: its record, its file, and the observer that writes it. No result depends on it.

A run on this machine and the attempt of a Slurm job differ in the folder of their file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

from mtpbench.errors import StoreError
from mtpbench.load.client import LoadProgress
from mtpbench.metrics.request_table import CUT_OFF
from mtpbench.records import READABLE_VERSIONS, SCHEMA_VERSION, Deployment, Point, PointResult
from mtpbench.store import json_text, replace_file
from mtpbench.store.reading import check_schema, decode, read_json

PROGRESS_FILE = "progress.json"
WRITE_EVERY_S = 1.0
HEARTBEAT_S = 10.0
"""A run whose file is a minute old counts as silent; servers can take half an hour to start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """The progress of a run, or of the attempt of a Slurm job, at one moment.

    Args:
        time_utc: when it was written, by the clock of the run's machine.
        host: that machine; None, as `pid`, in a file of an attempt that an older version wrote.
        stage: what the run is doing, for people, where no point is under load.
        point_id: the point under load.
        output_tps: output tokens/s of that point so far, over the whole deployment.
        elapsed_s: wall seconds since the run began.
        simulated: whether its points are simulated; None before its first ladder.
    """

    schema_version: int = SCHEMA_VERSION
    time_utc: str
    host: str | None = None
    pid: int | None = None
    stage: str | None = None
    point_id: str | None = None
    requests_ended: int = 0
    requests_total: int = 0
    output_tps: float | None = None
    points_done: int = 0
    points_left: int = 0
    elapsed_s: float = 0.0
    simulated: bool | None = None


def read_progress(path: Path) -> RunProgress:
    """Reads the progress that a run wrote last.

    Raises:
        SchemaError: another version of mtpbench wrote it.
        StoreError: the file can't be read.
    """
    data = read_json(path)
    if isinstance(data, dict):
        # The attempts of Slurm jobs said no version before schema 5.
        data.setdefault("schema_version", READABLE_VERSIONS[0])
    check_schema(data, path)
    return decode(RunProgress, data, path)


class ProgressWriter:
    """A progress writer writes a run's file; as a context it removes the file at the end.

    Args:
        path: of `progress.json`, in a folder that exists when it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Readers doubt a file that can't be removed, once it is old.
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def write(self, progress: RunProgress) -> None:
        """Writes the record whole, by rename, and without waiting for the disk.

        Raises:
            StoreError: the file can't be written.
        """
        replace_file(self.path, json_text(progress), sync=False)


@dataclass(kw_only=True, slots=True)
class PointCounts:
    """The counts of a run's points by state; those that were valid before it began are included."""

    total: int
    valid: int
    invalid: int = 0
    measured_valid: int = 0
    reason: str | None = None

    def add(self, result: PointResult) -> None:
        """Counts a measured point; one that was cut off stays to be measured."""
        if result.valid:
            self.valid += 1
            self.measured_valid += 1
        elif CUT_OFF not in {reason.code for reason in result.reasons}:
            self.invalid += 1
            self.reason = result.reasons[0].headline

    @property
    def done(self) -> int:
        """The number of points that are measured."""
        return self.valid + self.invalid

    @property
    def left(self) -> int:
        """The number of points that are still to be measured."""
        return self.total - self.done


class Observer(Protocol):
    """An observer is told what happens in a run; the one of the command line shows it."""

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        """A deployment is being started (None on the virtual clock) to serve these points."""

    def point_started(self, point: Point) -> None:
        """Load begins."""

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        """Load goes on."""

    def point_finished(self, point: Point, result: PointResult) -> None:
        """The point is stored."""

    def trouble(self, message: str) -> None:
        """Something went wrong that the run survives."""


class ProgressObserver:
    """The observer that writes a run's progress about once a second, and tells another observer everything.

    Args:
        writer: of the run's file; where it can't be written, one message says so and the run goes on.
        counts: of the run's points.
        inner: the other observer.
        displaced: returns why points are no longer stored in their places; None while they are.
    """

    def __init__(
        self,
        writer: ProgressWriter,
        counts: PointCounts,
        inner: Observer,
        displaced: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._writer, self._counts, self._inner, self._displaced = writer, counts, inner, displaced
        self._between = "between points"
        self._now = RunProgress(
            time_utc=now_utc(), host=socket.gethostname(), pid=os.getpid(), stage="starting"
        )
        self._begun = self._written = time.monotonic()
        self._failed = False

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        """A deployment is being started; on the virtual clock there is none."""
        self._now = replace(self._now, simulated=any(point.simulated for point in points))
        if deployment is None:
            self._between = "simulating"
        self._enter("waiting for the servers" if deployment is not None else "simulating")
        self._inner.ladder_started(deployment, points)

    def point_started(self, point: Point) -> None:
        """Load begins."""
        self._enter(None, point.id)
        self._inner.point_started(point)

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        """Load goes on; the file is written once a second."""
        self._now = replace(
            self._now,
            point_id=point.id,
            requests_ended=progress.ended,
            requests_total=progress.total,
            output_tps=progress.output_tokens / progress.elapsed_s if progress.elapsed_s > 0 else None,
        )
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self.beat()
        self._inner.point_progress(point, progress)

    def point_finished(self, point: Point, result: PointResult) -> None:
        """The point is stored; one that was not stored in its place is not counted."""
        if (displacement := self._displaced()) is None:
            self._counts.add(result)
        else:
            self._inner.trouble(f"{displacement}: this attempt ends, and this point takes no place")
        self._enter(self._between)
        self._inner.point_finished(point, result)

    def trouble(self, message: str) -> None:
        """Something went wrong that the run survives."""
        self._inner.trouble(message)

    def beat(self) -> None:
        """Writes the progress, with the time."""
        self._written = time.monotonic()
        progress = replace(
            self._now,
            time_utc=now_utc(),
            points_done=self._counts.done,
            points_left=self._counts.left,
            elapsed_s=round(self._written - self._begun, 3),
        )
        try:
            self._writer.write(progress)
        except StoreError as error:
            # The run ends on its own where the disk is too full to store points.
            if not self._failed:
                self._inner.trouble(f"{error}; `mtpbench watch` sees less of this run")
            self._failed = True

    def _enter(self, stage: str | None, point_id: str | None = None) -> None:
        self._now = replace(
            self._now, stage=stage, point_id=point_id, requests_ended=0, requests_total=0, output_tps=None
        )
        self.beat()


@contextlib.asynccontextmanager
async def heartbeat(observer: ProgressObserver) -> AsyncIterator[None]:
    """Lets an observer write its progress every few seconds while the block runs."""

    async def beat_on() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            observer.beat()

    async with in_background(asyncio.create_task(beat_on())):
        yield


@contextlib.asynccontextmanager
async def in_background(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """Cancels a task when the block ends, however it ends.

    Raises:
        Exception: what ended the task, where the block itself ended well.
    """
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


def now_utc() -> str:
    """Returns the time now as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
