"""Drives a closed loop of streamed requests and records every one of them, failed ones too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mtpbench.load.clock import PointClock
from mtpbench.load.health import SelfWatch
from mtpbench.load.pacer import ClosedLoop, Turn
from mtpbench.load.stream import Stream
from mtpbench.load.transport import AiohttpTransport, Failure, Transport
from mtpbench.records import ClientHealth, Measurement, RequestRecord
from mtpbench.workload import Prompts

PROGRESS_INTERVAL_S = 0.25
CUT_OFF = "cut_off"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a point has come.

    Args:
        elapsed_s: engine seconds since the point's origin.
        ended: requests that ended, failed ones included.
        failed: those that failed.
        total: requests that the point will send.
        in_flight: requests sent and not yet ended.
        output_tokens: output tokens so far (chunks where the server does not count along).
    """

    elapsed_s: float
    ended: int
    failed: int
    total: int
    in_flight: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveResult:
    """What a load run leaves behind.

    Args:
        requests: every request that was sent, ordered by index.
        client: how the client itself did, in engine seconds.
        origin: the `time.perf_counter()` value of the point's second 0.
        server_unreachable: whether the run ended early because nobody accepts connections any more.
        cut_off: `point_timeout` or `stopped` where the run was ended before its last request, or None.
        notes: what a reader should know besides.
    """

    requests: list[RequestRecord]
    client: ClientHealth
    origin: float
    server_unreachable: bool
    cut_off: str | None
    notes: tuple[str, ...]

    @property
    def timed_out(self) -> bool:
        """Whether the point's timeout cut the run off."""
        return self.cut_off == "point_timeout"


async def drive(
    base_url: str,
    model_name: str,
    prompts: Prompts,
    loop: ClosedLoop,
    rules: Measurement,
    *,
    time_scale: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
    stop: asyncio.Event | None = None,
    on_origin: Callable[[float], None] | None = None,
    transport: Transport | None = None,
) -> DriveResult:
    """Send the loop's requests from its slots, each slot its next one as soon as the last one ended.

    No request raises: whatever happens to it is its record. A server that refuses max(2C, 20) connections
    in a row ends the run.

    Args:
        base_url: such as `http://127.0.0.1:8000`.
        model_name: the name that requests use.
        prompts: the requests, at least as many as the loop hands out.
        loop: a fresh closed loop.
        rules: timeouts (engine seconds), and whether to ask for continuous usage.
        time_scale: engine seconds per wall second.
        progress: called about four times a second, and once at the end.
        stop: when set, the run is cut off like at the point's timeout.
        on_origin: told the `time.perf_counter()` value of the point's second 0, for others who stamp on it.
        transport: how requests travel; aiohttp by default.
    """
    transport = transport or AiohttpTransport()
    await transport.open(base_url, loop.concurrency)
    try:
        run = _Run(
            prompts=prompts,
            loop=loop,
            rules=rules,
            model_name=model_name,
            clock=PointClock(time_scale),
            transport=transport,
        )
        if on_origin is not None:
            on_origin(run.clock.origin)
        return await run.run(progress, stop)
    finally:
        await transport.close()


@dataclass(kw_only=True, eq=False)
class _Run:
    """The state of one run."""

    prompts: Prompts
    loop: ClosedLoop
    rules: Measurement
    model_name: str
    clock: PointClock
    transport: Transport

    def __post_init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.active: set[Stream] = set()
        self.failed = self.ended_tokens = self.missed_done = self.refused = 0
        self.halted = self.unreachable = False
        self.cut_off: str | None = None
        self.watch = SelfWatch(self.clock)

    async def run(
        self, progress: Callable[[Progress], None] | None, stop: asyncio.Event | None
    ) -> DriveResult:
        slots = [asyncio.create_task(self._slot(i)) for i in range(self.loop.concurrency)]
        helpers = [asyncio.create_task(self.watch.tick())]
        if progress is not None:
            helpers.append(asyncio.create_task(self._report(progress)))
        stopping: asyncio.Task[Any] | None = asyncio.create_task(stop.wait()) if stop else None
        try:
            await self._await_end(slots, stopping)
        finally:
            await _cancel([*slots, *helpers, *([stopping] if stopping else [])])
        self.records.sort(key=lambda record: record.index)
        if progress is not None:
            progress(self._progress())
        return DriveResult(
            requests=self.records,
            client=self.watch.health(self.records, self.loop.concurrency),
            origin=self.clock.origin,
            server_unreachable=self.unreachable,
            cut_off=self.cut_off,
            notes=self._notes(),
        )

    async def _await_end(self, slots: list[asyncio.Task[None]], stopping: asyncio.Task[Any] | None) -> None:
        """Wait until all slots are done, one has a fault, or the run is to be cut off."""
        everything = asyncio.gather(*slots)
        watched: set[asyncio.Future[Any]] = {everything}
        if stopping is not None:
            watched.add(stopping)
        timeout_s = self.clock.wall(self.rules.point_timeout_s)
        done, _ = await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if everything in done:
            everything.result()
            return
        self.cut_off = "stopped" if stopping in done else "point_timeout"
        self.halted = True
        await _cancel(slots)
        everything.cancel()

    async def _slot(self, slot: int) -> None:
        scheduled_s = 0.0
        while not self.halted:
            turn = self.loop.take()
            if turn is None:
                return
            scheduled_s = await self._request(slot, turn, scheduled_s)

    async def _request(self, slot: int, turn: Turn, scheduled_s: float) -> float:
        """Send one request and record it; the moment it ended, which is when the next one is due."""
        path, body = self.prompts.body(turn.index, self.model_name, self.rules.continuous_usage)
        stream = Stream()
        self.active.add(stream)
        timeout_s = self.clock.wall(self.rules.request_timeout_s)
        failure: Failure | None
        sent = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                failure = await self.transport.stream(path, body, stream.feed)
        except TimeoutError:
            failure = ("timeout", f"no end after {self.rules.request_timeout_s:g} s")
        except asyncio.CancelledError:
            if self.cut_off is None:
                raise
            failure = (CUT_OFF, self.cut_off)
        finally:
            self.active.discard(stream)
        ended = stream.last_s if failure is None and stream.last_s is not None else time.perf_counter()
        record = self._record(slot, turn, stream, failure, (scheduled_s, sent, ended))
        self.records.append(record)
        self._count(record, stream)
        return record.end_s

    def _record(
        self,
        slot: int,
        turn: Turn,
        stream: Stream,
        failure: Failure | None,
        times: tuple[float, float, float],
    ) -> RequestRecord:
        scheduled_s, sent, ended = times
        answer = stream.answer(failure is None, failure)
        self.missed_done += answer.missed_done
        at = self.clock.at
        return RequestRecord(
            index=turn.index,
            slot=slot,
            warmup=turn.warmup,
            scheduled_s=scheduled_s,
            sent_s=at(sent),
            end_s=at(ended),
            chunk_times_s=tuple([at(stamp) for stamp in answer.chunk_times]),
            chunk_tokens=answer.chunk_tokens,
            asked_prompt_tokens=int(self.prompts.lengths.prompt_tokens[turn.index]),
            asked_output_tokens=int(self.prompts.lengths.output_tokens[turn.index]),
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            finish_reason=answer.finish_reason,
            error=answer.error,
            error_detail=answer.error_detail,
        )

    def _count(self, record: RequestRecord, stream: Stream) -> None:
        self.ended_tokens += stream.tokens
        self.failed += record.error is not None
        self.refused = self.refused + 1 if record.error == "connect_failed" else 0
        if self.refused >= max(2 * self.loop.concurrency, 20):
            self.unreachable = self.halted = True

    async def _report(self, progress: Callable[[Progress], None]) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            progress(self._progress())

    def _progress(self) -> Progress:
        return Progress(
            elapsed_s=self.clock.now(),
            ended=len(self.records),
            failed=self.failed,
            total=self.loop.total,
            in_flight=len(self.active),
            output_tokens=self.ended_tokens + sum(stream.tokens for stream in self.active),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = list(self.prompts.notes)
        if self.missed_done:
            notes.append(
                f"{self.missed_done} streams ended without [DONE] but with usage and a finish reason"
            )
        if self.unreachable:
            notes.append(f"{self.refused} connections in a row were refused: the rest was not sent")
        return tuple(notes)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
