"""The request log of each client process, and the request table that the client makes of all logs.

Each process appends to three files of its own: rows (one for each request that ended), chunks (8 bytes each),
and texts (finish reasons and errors that are not the usual ones). A request that has ended is written within
a second, so its record survives the death of the process.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtpbench.load.pacer import Schedule, Turn
from mtpbench.load.stream import Answer, Stream
from mtpbench.load.usage import TOKEN_BITS, UNCOUNTED
from mtpbench.metrics.request_table import TOLD, UNKNOWN, Ints, RequestTable
from mtpbench.workload import Lengths

ROW = np.dtype(
    [
        ("index", "<i8"),
        ("slot", "<i8"),
        ("warmup", "<i8"),
        ("scheduled_us", "<i8"),
        ("sent_us", "<i8"),
        ("end_us", "<i8"),
        ("asked_prompt_tokens", "<i8"),
        ("asked_output_tokens", "<i8"),
        ("prompt_tokens", "<i8"),
        ("output_tokens", "<i8"),
        ("cached_prompt_tokens", "<i8"),
        ("reasoning_tokens", "<i8"),
        *((name, "<i8") for name in TOLD),
        ("chunks", "<i8"),
    ]
)
USUAL_FINISH = "length"
FLUSH_BYTES = 1 << 20
_PACK = struct.Struct(f"<{len(ROW.names or ())}q").pack
WORKER_DIED = "worker_died"
_ROW_BITS = 63 - TOKEN_BITS
"""Times that fit beside a packed chunk's tokens sort by request and then by time as one number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestEnd:
    """The times of a request that ended, in microseconds on the run's clock, and its requested lengths."""

    scheduled_us: int
    sent_us: int
    end_us: int
    asked_prompt_tokens: int
    asked_output_tokens: int


class RequestLog:
    """The log of one process records its requests in the order in which they end.

    Args:
        directory: where the files are written.
        worker: the process's number, which the files are named after.
    """

    def __init__(self, directory: Path, worker: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        *files, started = (os.open(path, flags, 0o600) for path in _paths(directory, worker))
        os.write(started, bytes(8))
        self._files = files
        self._rows, self._chunks, self._texts = bytearray(), bytearray(), bytearray()
        self.ended = 0
        self._started = memoryview(mmap.mmap(started, 8)).cast("q")
        os.close(started)

    def start(self, heads: int) -> None:
        """Notes how many heads of the share have started, in a file that outlives the process."""
        self._started[0] = heads

    def add(self, turn: Turn, end: RequestEnd, stream: Stream, answer: Answer) -> None:
        """Records a request that ended, failed or not."""
        self._rows += _PACK(
            turn.index,
            turn.slot,
            turn.warmup,
            end.scheduled_us,
            end.sent_us,
            end.end_us,
            end.asked_prompt_tokens,
            end.asked_output_tokens,
            UNKNOWN if answer.prompt_tokens is None else answer.prompt_tokens,
            UNKNOWN if answer.output_tokens is None else answer.output_tokens,
            UNKNOWN if answer.cached_prompt_tokens is None else answer.cached_prompt_tokens,
            UNKNOWN if answer.reasoning_tokens is None else answer.reasoning_tokens,
            *answer.told,
            len(stream.chunks),
        )
        self._chunks += stream.chunks.tobytes()
        if answer.error is not None or answer.finish_reason != USUAL_FINISH:
            text = [self.ended, answer.finish_reason, answer.error, answer.error_detail]
            self._texts += json.dumps(text).encode() + b"\n"
        self.ended += 1
        if len(self._chunks) + len(self._rows) > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes everything to the files: the rows last, so that no row lacks its chunks."""
        rows, chunks, texts = self._files
        for file, buffer in ((texts, self._texts), (chunks, self._chunks), (rows, self._rows)):
            while buffer:
                del buffer[: os.write(file, buffer)]

    def close(self) -> None:
        """Writes everything and closes the files."""
        self.flush()
        for file in self._files:
            os.close(file)


def _paths(directory: Path, worker: int) -> tuple[Path, ...]:
    return tuple(directory / f"{worker}.{kind}" for kind in ("rows", "chunks", "texts", "started"))


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerDeath:
    """The death of a client process: its number, when it ended, and its last message."""

    worker: int
    at_us: int
    detail: str


def read_table(
    directory: Path, schedule: Schedule, workers: int, deaths: Sequence[WorkerDeath], lengths: Lengths
) -> RequestTable:
    """Reads the requests of all processes into one table in engine time, ordered by index.

    The table also holds the requests that a dead process had started and not written, failed as
    `worker_died`.

    Args:
        directory: where the processes wrote their logs.
        schedule: the schedule that they shared.
        workers: how many processes there were.
        deaths: the processes that died.
        lengths: the requested lengths of every request.
    """
    parts = [_read(directory, worker) for worker in range(workers)]
    for death in deaths:
        written = parts[death.worker][0]["index"]
        parts.append(_lost_requests(directory, schedule, workers, death, written, lengths))
    rows, chunks, texts = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return _table(rows, chunks, texts, schedule.time_scale)


def _read(directory: Path, worker: int) -> tuple[Any, Ints, Any]:
    paths = _paths(directory, worker)
    empty = np.empty(0, ROW), np.empty(0, np.int64), np.empty((0, 3), object)
    if not paths[0].exists():
        return empty
    whole = paths[0].stat().st_size // ROW.itemsize
    rows = np.fromfile(paths[0], ROW, count=whole)
    chunks = np.fromfile(paths[1], np.int64)[: int(rows["chunks"].sum())]
    texts = np.empty((len(rows), 3), object)
    texts[:] = (USUAL_FINISH, None, None)
    for line in paths[2].read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            position, *text = json.loads(line)
            if position < len(rows):
                texts[position] = text
    return rows, chunks, texts


def _lost_requests(
    directory: Path, schedule: Schedule, workers: int, death: WorkerDeath, written: Ints, lengths: Lengths
) -> tuple[Any, Ints, Any]:
    """Returns the requests that a dead process had started and not written.

    Nobody knows when each of them was sent: all their times are that of the death.
    """
    path = _paths(directory, death.worker)[3]
    started = int.from_bytes(path.read_bytes()[:8], "little") if path.exists() else 0
    heads = schedule.heads[schedule.positions(death.worker, workers)][:started]
    # A session's next turn had started, or was about to, once the turn before had ended.
    next_turns = schedule.following[written]
    started_requests = np.union1d(heads, next_turns[next_turns >= 0])
    lost = started_requests[~np.isin(started_requests, written)]
    rows = np.zeros(len(lost), ROW)
    rows["index"], rows["warmup"] = lost, lost < schedule.warmup
    rows["slot"] = death.worker
    for name in ("scheduled_us", "sent_us", "end_us"):
        rows[name] = death.at_us
    rows["asked_prompt_tokens"] = lengths.prompt_tokens[lost]
    rows["asked_output_tokens"] = lengths.output_tokens[lost]
    for name in ("prompt_tokens", "output_tokens", "cached_prompt_tokens", "reasoning_tokens", *TOLD):
        rows[name] = UNKNOWN
    texts = np.empty((len(lost), 3), object)
    texts[:] = (None, WORKER_DIED, death.detail)
    return rows, np.empty(0, np.int64), texts


def _table(rows: Any, packed: Ints, texts: Any, time_scale: float) -> RequestTable:
    order = np.argsort(rows["index"], kind="stable")
    counts = rows["chunks"]
    begins = np.concatenate(([0], np.cumsum(counts)))[:-1]
    rows, counts, begins, texts = rows[order], counts[order], begins[order], texts[order]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    # Where each chunk of the ordered table stands in the chunks as written.
    gather = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], counts)
    packed = packed[gather]
    tokens = packed & UNCOUNTED
    unknown = np.zeros(len(rows), np.bool_)
    chunk_rows = np.repeat(np.arange(len(rows)), counts)
    unknown[chunk_rows[tokens == UNCOUNTED]] = True
    tokens[unknown[chunk_rows]] = UNKNOWN
    times_us = _in_order(packed >> TOKEN_BITS, chunk_rows)

    def in_engine_us(wall_us: Ints) -> Ints:
        return np.ascontiguousarray(wall_us if time_scale == 1 else np.rint(wall_us * time_scale), np.int64)

    def told(name: str) -> Ints | None:
        return None if (rows[name] == UNKNOWN).all() else ints(name)

    def ints(name: str) -> Ints:
        return np.ascontiguousarray(rows[name])

    return RequestTable(
        index=ints("index"),
        slot=ints("slot"),
        warmup=ints("warmup").astype(np.bool_),
        scheduled_us=in_engine_us(rows["scheduled_us"]),
        sent_us=in_engine_us(rows["sent_us"]),
        end_us=in_engine_us(rows["end_us"]),
        asked_prompt_tokens=ints("asked_prompt_tokens"),
        asked_output_tokens=ints("asked_output_tokens"),
        prompt_tokens=ints("prompt_tokens"),
        output_tokens=ints("output_tokens"),
        cached_prompt_tokens=ints("cached_prompt_tokens"),
        reasoning_tokens=ints("reasoning_tokens"),
        drafts=told("drafts"),
        draft_tokens=told("draft_tokens"),
        accepted_draft_tokens=told("accepted_draft_tokens"),
        finish_reason=texts[:, 0],
        error=texts[:, 1],
        error_detail=texts[:, 2],
        chunk_offsets=offsets,
        chunk_times_us=in_engine_us(times_us),
        chunk_tokens=tokens,
    )


def _in_order(times_us: Ints, rows: Ints) -> Ints:
    """Returns the times of chunks, none before that of the chunk before it in its row.

    Kernel stamps that lie closer together than the error of the clock's offset may be out of order.
    """
    back = (times_us[1:] < times_us[:-1]) & (rows[1:] == rows[:-1])
    if not back.any():
        return times_us
    keys = times_us + (rows << _ROW_BITS)
    np.maximum.accumulate(keys, out=keys)
    return np.asarray(keys - (rows << _ROW_BITS), np.int64)
