"""What a run on this folder is doing now: progress.json, for those who watch. No result rests on it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from mtpbench.records import SCHEMA_VERSION, to_json
from mtpbench.store.reading import read_record
from mtpbench.store.writing import write_tables

PROGRESS_FILE = "progress.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """What a run is doing at a moment.

    Args:
        time_utc: when it said so, by its machine's clock.
        stage: in words, where no point is under load.
        point_id: the point under load.
        output_tps: output tokens/s of it so far, over the whole deployment.
        elapsed_s: wall seconds since the run began.
        simulated: whether its points are; None before it has begun with one.
    """

    schema_version: int = SCHEMA_VERSION
    time_utc: str
    host: str
    pid: int
    stage: str | None = None
    point_id: str | None = None
    requests_ended: int = 0
    requests_total: int = 0
    output_tps: float | None = None
    points_done: int = 0
    points_left: int = 0
    elapsed_s: float = 0.0
    simulated: bool | None = None


def write_progress(directory: Path, progress: RunProgress) -> None:
    """Say what a run is doing; whole, by rename, and without waiting for the disk.

    Raises:
        StoreError: the file can't be written.
    """
    text = json.dumps(to_json(progress), indent=1, ensure_ascii=False) + "\n"
    write_tables(directory, {PROGRESS_FILE: text})


def read_progress(directory: Path) -> RunProgress:
    """What a run last said.

    Raises:
        SchemaError, StoreError: as `read_record` says.
    """
    return read_record(RunProgress, directory / PROGRESS_FILE)


def remove_progress(directory: Path) -> None:
    """The run has ended, and says nothing more; what can't be removed goes stale."""
    with contextlib.suppress(OSError):
        (directory / PROGRESS_FILE).unlink(missing_ok=True)
