"""What a run is doing now: one record, its file, and the observer that keeps it. No result rests on it.

A run on this machine and the attempt of a Slurm job differ in where their file lies.
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
from mtpbench.records import READABLE_VERSIONS, SCHEMA_VERSION, Deployment, Point, PointResult
from mtpbench.store import json_text, replace_file
from mtpbench.store.reading import check_schema, decode, read_json
from mtpbench.validity import CUT_OFF

PROGRESS_FILE = "progress.json"
WRITE_EVERY_S = 1.0
HEARTBEAT_S = 10.0
"""A run that says nothing for a minute is doubted; servers can take half an hour to start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """What a run, or the attempt of a Slurm job, is doing at a moment.

    Args:
        time_utc: when it said so, by its machine's clock.
        host: that machine; None, as `pid`, in a file of an attempt that an older version wrote.
        stage: in words, where no point is under load.
        point_id: the point under load.
        output_tps: output tokens/s of it so far, over the whole deployment.
        elapsed_s: wall seconds since the run began.
        simulated: whether its points are; None before it has begun with one.
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
    """Returns what a run last said.

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
    """The writer of a run's progress file; as a context it removes the file at the end.

    Args:
        path: `progress.json` in a folder that is there when it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What can't be removed goes stale.
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def write(self, progress: RunProgress) -> None:
        """Write the record whole, by rename, and without waiting for the disk.

        Raises:
            StoreError: the file can't be written.
        """
        replace_file(self.path, json_text(progress), sync=False)


@dataclass(kw_only=True, slots=True)
class PointCounts:
    """The points of a run by how they stand: valid before it began, and as it measured them."""

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
    def done(self) -> int:
        """Points that are measured."""
        return self.valid + self.invalid

    @property
    def left(self) -> int:
        """Points that have to be measured yet."""
        return self.total - self.done


class Observer(Protocol):
    """Who watches a run; the command line shows what it is told."""

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
    """The observer that writes what a run is doing, about once a second, and tells another one the same.

    Args:
        writer: of the run's file; where that can't be written it is said once, and the run goes on.
        counts: of the run's points.
        inner: told the same.
        displaced: says why points take no place any longer; None while they do.
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
        """Servers are being started; on the virtual clock there are none."""
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
        """Load goes on; once a second is often enough for a file."""
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
        """A point is stored; one that took no place is not counted."""
        if (why := self._displaced()) is None:
            self._counts.add(result)
        else:
            self._inner.trouble(f"{why}: this attempt ends, and this point takes no place")
        self._enter(self._between)
        self._inner.point_finished(point, result)

    def trouble(self, message: str) -> None:
        """Something that the run survives."""
        self._inner.trouble(message)

    def beat(self) -> None:
        """Write what is going on, with the time."""
        self._written = time.monotonic()
        now = replace(
            self._now,
            time_utc=now_utc(),
            points_done=self._counts.done,
            points_left=self._counts.left,
            elapsed_s=round(self._written - self._begun, 3),
        )
        try:
            self._writer.write(now)
        except StoreError as error:
            # Points are what counts: they say it themselves when the disk is full.
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
    """Lets an observer say every few seconds that its run lives, while the block does."""

    async def beat_on() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            observer.beat()

    async with in_background(asyncio.create_task(beat_on())):
        yield


@contextlib.asynccontextmanager
async def in_background(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """A task that goes on no longer than the block does, however that ends."""
    try:
        yield
    finally:
        task.cancel()


def now_utc() -> str:
    """Returns this moment, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
