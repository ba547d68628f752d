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
from mtpbench.load.client_spec import ClientSpec
from mtpbench.records import to_json
from mtpbench.remote import ClockOffset, HelperFailed, HelperProcess, Host

READY_TIMEOUT_S = 300.0
START_DELAY_S = 0.02
"""Between the word to start and the start: all processes have heard it by then."""
ACCEPT_S = 50e-6
"""What a server may take to accept each connection that was opened beforehand."""
NO_WORDS = "it said nothing"


@dataclass(kw_only=True, eq=False)
class WorkerProcess:
    """One process, and the counts that it last told."""

    number: int
    helper: HelperProcess
    offset: ClockOffset = field(default_factory=ClockOffset)
    counts: dict[str, int] = field(default_factory=dict)
    ended_at: float | None = None


class WorkerPool:
    """An async context: the processes are started, ready and connected on entry, and gone on exit.

    Args:
        spec: the load.
        workers: how many processes.
        hosts: hosts that they are dealt to in turn; none for this host.

    Raises:
        InputError: a process found the workload's files wrong (a dataset, a missing key).
        RunError: a process died before it was ready, or does not tell its clock.
    """

    def __init__(self, spec: ClientSpec, workers: int, hosts: Sequence[Host] = ()) -> None:
        self._spec, self.count = spec, workers
        self._hosts = tuple(hosts) or (Host(name=socket.gethostname()),)
        shared = self._hosts[0].directory
        self._folder = tempfile.TemporaryDirectory(prefix="mtpbench-load-", dir=shared)
        self.directory = Path(self._folder.name)
        self.members: list[WorkerProcess] = []
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> WorkerPool:
        (self.directory / "spec.json").write_text(json.dumps(to_json(self._spec)), "utf-8")
        try:
            for number in range(self.count):
                self.members.append(await self._start(number))
            self._readers = [asyncio.create_task(_await_ready(member)) for member in self.members]
            await asyncio.gather(*self._readers)
            for member in self.members:
                if member.helper.host.launch:
                    member.offset = await member.helper.clock_offset()
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
        host = self._hosts[number % len(self._hosts)]
        arguments = (str(self.directory), str(number), str(self.count))
        name, errors = f"load client {number} on {host.name}", self.directory / f"{number}.stderr"
        try:
            helper = await HelperProcess.start(name, host, "mtpbench.load.worker", arguments, errors)
        except OSError as error:
            raise RunError(f"{name} can't be started ({error})") from error
        return WorkerProcess(number=number, helper=helper)

    def start(self, heard: Callable[[], None]) -> int:
        """Give the word; the `time.perf_counter_ns()` value of the run's second 0.

        Args:
            heard: called after every line of progress.
        """
        delay_s = START_DELAY_S + ACCEPT_S * self._spec.concurrency
        origin_ns = time.perf_counter_ns() + int(delay_s * 1e9)
        for member in self.members:
            member.helper.tell(f"go {origin_ns + member.offset.offset_ns}")
            self._readers.append(asyncio.create_task(self._listen(member, heard)))
        return origin_ns

    def stop(self) -> None:
        """Cut the load off; what was recorded is kept."""
        for member in self.members:
            member.helper.tell("stop")

    async def wait(self) -> None:
        """Until every process has ended, by itself or not."""
        await asyncio.gather(*self._readers)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the processes run on."""
        return tuple(dict.fromkeys(member.helper.host.name for member in self.members))

    @property
    def clock_error_s(self) -> float | None:
        """How far the clock of any other host may be off; None where all run on this one."""
        errors = [member.offset.error_ns for member in self.members if member.helper.host.launch]
        return max(errors) * 1e-9 if errors else None

    def total(self, name: str) -> int:
        """The sum of what the processes last told of a count."""
        return sum(member.counts.get(name, 0) for member in self.members)

    def obituary(self, member: WorkerProcess) -> str:
        """How a process ended that did not end in order."""
        status = member.helper.process.returncode
        how = (
            f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with {status}"
        )
        return f"load client {member.number} {how}: {member.helper.last_words() or NO_WORDS}"

    def summary(self, member: WorkerProcess) -> dict[str, Any] | None:
        """What a process wrote of itself at its end; None where it did not get that far."""
        path = self.directory / f"{member.number}.summary.json"
        if member.helper.process.returncode != 0 or not path.exists():
            return None
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]

    async def _listen(self, member: WorkerProcess, heard: Callable[[], None]) -> None:
        while (counts := await member.helper.read()) is not None:
            member.counts = counts
            heard()
        await member.helper.process.wait()
        member.ended_at = time.perf_counter()

    async def _end(self) -> None:
        """Stop what still runs."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await asyncio.gather(*(member.helper.stop() for member in self.members))
        self._folder.cleanup()


async def _await_ready(member: WorkerProcess) -> None:
    try:
        await member.helper.ready(READY_TIMEOUT_S)
    except HelperFailed as failure:
        if failure.exit_status is None:
            raise
        last_words = member.helper.last_words() or NO_WORDS
        if failure.exit_status == InputError.exit_code:
            raise InputError(last_words) from None
        raise RunError(
            f"load client {member.number} died before it was ready (exit {failure.exit_status}): {last_words}"
        ) from None
