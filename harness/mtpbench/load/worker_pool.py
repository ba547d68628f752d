"""The worker pool holds the processes of a load client, which start and stop together, each with its share.

While they run, each process sends one line of counts four times a second. Its records lie in files of a
private folder, which the client reads when all have ended.
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
"""From the command to start until the start: all processes have read the command by then."""
ACCEPT_S = 50e-6
"""Time that a server may need to accept each connection that was opened beforehand."""
NO_MESSAGE = "it said nothing"


@dataclass(kw_only=True, eq=False)
class WorkerProcess:
    """A process of the load client, and the counts that it last reported."""

    number: int
    helper: HelperProcess
    offset: ClockOffset = field(default_factory=ClockOffset)
    counts: dict[str, int] = field(default_factory=dict)
    ended_at: float | None = None


class WorkerPool:
    """The worker pool is an async context: its processes are ready on entry, and have ended on exit.

    Args:
        spec: the load.
        workers: how many processes there are.
        hosts: hosts that the processes run on, in turn; none for this host.

    Raises:
        InputError: the workload can't be used (its dataset, a missing key).
        RunError: a process died before it was ready, or does not report its clock.
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

    def start(self, on_progress: Callable[[], None]) -> int:
        """Starts the load in all processes.

        Args:
            on_progress: called after every line of counts.

        Returns:
            The `time.perf_counter_ns()` value of the run's second 0.
        """
        delay_s = START_DELAY_S + ACCEPT_S * self._spec.concurrency
        origin_ns = time.perf_counter_ns() + int(delay_s * 1e9)
        for member in self.members:
            member.helper.tell(f"go {origin_ns + member.offset.offset_ns}")
            self._readers.append(asyncio.create_task(self._read_counts(member, on_progress)))
        return origin_ns

    def stop(self) -> None:
        """Cuts the load off; the records so far are kept."""
        for member in self.members:
            member.helper.tell("stop")

    async def wait(self) -> None:
        """Waits until every process has ended, by itself or not."""
        await asyncio.gather(*self._readers)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the processes run on."""
        return tuple(dict.fromkeys(member.helper.host.name for member in self.members))

    @property
    def clock_error_s(self) -> float | None:
        """How far the clock of any other host may be off; None if all processes run on this host."""
        errors = [member.offset.error_ns for member in self.members if member.helper.host.launch]
        return max(errors) * 1e-9 if errors else None

    def total(self, name: str) -> int:
        """Returns the sum of a count over the processes, as they last reported it."""
        return sum(member.counts.get(name, 0) for member in self.members)

    def describe_death(self, member: WorkerProcess) -> str:
        """Returns how a process ended that did not end in order, with its last message."""
        status = member.helper.process.returncode
        end = f"ended with {status}"
        if status is not None and status < 0:
            end = f"was killed by signal {-status}"
        return f"load client {member.number} {end}: {member.helper.last_words() or NO_MESSAGE}"

    def end_of(self, member: WorkerProcess) -> float:
        """Returns when a process ended, as `time.perf_counter()` counts; it has driven its load by then."""
        assert member.ended_at is not None, "the pool waits for the end of every process"
        return member.ended_at

    def summary(self, member: WorkerProcess) -> dict[str, Any] | None:
        """Returns the summary that a process wrote at its end; None if it did not end in order."""
        path = self.directory / f"{member.number}.summary.json"
        if member.helper.process.returncode != 0 or not path.exists():
            return None
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]

    async def _read_counts(self, member: WorkerProcess, on_progress: Callable[[], None]) -> None:
        while (counts := await member.helper.read()) is not None:
            member.counts = counts
            on_progress()
        await member.helper.process.wait()
        member.ended_at = time.perf_counter()

    async def _end(self) -> None:
        """Stops the processes that still run, and deletes the folder."""
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
        last_words = member.helper.last_words() or NO_MESSAGE
        if failure.exit_status == InputError.exit_code:
            raise InputError(last_words) from None
        raise RunError(
            f"load client {member.number} died before it was ready (exit {failure.exit_status}): {last_words}"
        ) from None
