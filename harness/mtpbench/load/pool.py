"""The processes of a load client: started together, stopped together, each with its share.

Nothing travels between them while they run but a line of progress four times a second. What they record lies
in files of a private folder, which is read when they have ended.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mtpbench.errors import InputError, RunError
from mtpbench.load.job import Job
from mtpbench.records import to_json
from mtpbench.station import ClockOffset, Station, ask_clock, launch

READY_TIMEOUT_S = 300.0
START_DELAY_S = 0.02
"""Between the word to start and the start: all processes have heard it by then."""
STOP_TIMEOUT_S = 10.0
ACCEPT_S = 50e-6
"""What a server may take to accept each connection that was opened beforehand."""
_BAD_INPUT = InputError.exit_code


@dataclass(kw_only=True, eq=False)
class WorkerProcess:
    """One process, and the last it said of itself."""

    number: int
    process: asyncio.subprocess.Process
    station: Station
    offset: ClockOffset = field(default_factory=lambda: ClockOffset(offset_ns=0, error_ns=0))
    said: dict[str, int] = field(default_factory=dict)
    ended_at: float | None = None


class Pool:
    """An async context: the processes are started, ready and connected on entry, and gone on exit.

    Args:
        job: the load.
        workers: how many processes.
        stations: hosts that they are dealt to in turn; none for this host.

    Raises:
        InputError: a process found the job's own files wrong (a dataset, a missing key).
        RunError: a process died before it was ready, or does not tell its clock.
    """

    def __init__(self, job: Job, workers: int, stations: Sequence[Station] = ()) -> None:
        self._job, self.count = job, workers
        self._stations = tuple(stations) or (Station(host=socket.gethostname()),)
        shared = self._stations[0].directory
        self._folder = tempfile.TemporaryDirectory(prefix="mtpbench-load-", dir=shared)
        self.directory = Path(self._folder.name)
        self.members: list[WorkerProcess] = []
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Pool:
        (self.directory / "job.json").write_text(json.dumps(to_json(self._job)), "utf-8")
        try:
            for number in range(self.count):
                self.members.append(await self._start(number))
            self._readers = [asyncio.create_task(self._await_ready(member)) for member in self.members]
            await asyncio.gather(*self._readers)
            for member in self.members:
                if member.station.launch:
                    member.offset = await ask_clock(
                        member.process, f"the load client on {member.station.host}"
                    )
        except BaseException:
            await self._end()
            raise
        self._readers = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self, number: int) -> WorkerProcess:
        station = self._stations[number % len(self._stations)]
        with self.words_file(number).open("wb") as words:
            command = (station.python, "-m", "mtpbench.load.worker", str(self.directory))
            process = await launch(station, (*command, str(number), str(self.count)), words)
        return WorkerProcess(number=number, process=process, station=station)

    async def _await_ready(self, member: WorkerProcess) -> None:
        assert member.process.stdout is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = await member.process.stdout.readline()
        except TimeoutError:
            raise RunError(f"load client {member.number} was not ready after {READY_TIMEOUT_S:g} s") from None
        if line:
            return
        status = await member.process.wait()
        words = self.last_words(member)
        if status == _BAD_INPUT:
            raise InputError(words)
        raise RunError(f"load client {member.number} died before it was ready (exit {status}): {words}")

    def start(self, heard: Callable[[], None]) -> int:
        """Give the word; the `time.perf_counter_ns()` value of the run's second 0.

        Args:
            heard: called after every line of progress.
        """
        delay_s = START_DELAY_S + ACCEPT_S * self._job.concurrency
        origin_ns = time.perf_counter_ns() + int(delay_s * 1e9)
        for member in self.members:
            self._tell(member, f"go {origin_ns + member.offset.offset_ns}")
            self._readers.append(asyncio.create_task(self._listen(member, heard)))
        return origin_ns

    def stop(self) -> None:
        """Cut the load off; what was recorded is kept."""
        for member in self.members:
            self._tell(member, "stop")

    async def wait(self) -> None:
        """Until every process has ended, by itself or not."""
        await asyncio.gather(*self._readers)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the processes run on."""
        return tuple(dict.fromkeys(member.station.host for member in self.members))

    @property
    def clock_error_s(self) -> float | None:
        """How far the clock of any other host may be off; None where all run on this one."""
        errors = [member.offset.error_ns for member in self.members if member.station.launch]
        return max(errors) * 1e-9 if errors else None

    def total(self, name: str) -> int:
        """The sum of what the processes last said of a count."""
        return sum(member.said.get(name, 0) for member in self.members)

    def words_file(self, number: int) -> Path:
        """Where a process's standard error goes."""
        return self.directory / f"{number}.stderr"

    def last_words(self, member: WorkerProcess) -> str:
        """The end of a process's standard error."""
        return (
            self.words_file(member.number).read_text("utf-8", "replace").strip()[-2000:] or "it said nothing"
        )

    def obituary(self, member: WorkerProcess) -> str:
        """How a process ended that did not end in order."""
        status = member.process.returncode
        how = (
            f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with {status}"
        )
        return f"load client {member.number} {how}: {self.last_words(member)}"

    def summary(self, member: WorkerProcess) -> dict[str, Any] | None:
        """What a process wrote of itself at its end; None where it did not get that far."""
        path = self.directory / f"{member.number}.summary.json"
        if member.process.returncode != 0 or not path.exists():
            return None
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]

    async def _listen(self, member: WorkerProcess, heard: Callable[[], None]) -> None:
        assert member.process.stdout is not None
        while line := await member.process.stdout.readline():
            member.said = json.loads(line)
            heard()
        await member.process.wait()
        member.ended_at = time.perf_counter()

    @staticmethod
    def _tell(member: WorkerProcess, line: str) -> None:
        pipe = member.process.stdin
        if pipe is not None and not pipe.is_closing():
            pipe.write(f"{line}\n".encode())

    async def _end(self) -> None:
        """Take down what still runs: the end of standard input asks, a kill makes sure."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await asyncio.gather(*(_take_down(member.process) for member in self.members))
        self._folder.cleanup()


async def _take_down(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is not None:
        return
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
