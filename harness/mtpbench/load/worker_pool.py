"""The worker pool holds the processes of a load client, which start and stop together, each with its share.

While they run, each process sends one line of counts four times a second. Its records lie in files of a
private folder, which the client reads when all have ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import shutil
import signal
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
LATE_S, STOPPED_LATE_S = 10.0, 5.0
"""How long after the point's timeout, and after a `stop`, a process that has not ended counts as one that
stands still: it is ended. A healthy one writes its records in far less."""
SIGNALLED_S = 5.0
"""How long it may take to end after a signal."""
START_DELAY_S = 0.02
"""From the command to start until the start: all processes have read the command by then."""
ACCEPT_S = 50e-6
"""Time that a server may need to accept each connection that was opened beforehand."""
NO_MESSAGE = "it said nothing"
LOOK_EVERY_S = 0.5
PREFIX, LOCK = "mtpbench-load-", "lock"


@dataclass(kw_only=True, eq=False)
class WorkerProcess:
    """A process of the load client, and the counts that it last reported."""

    number: int
    helper: HelperProcess
    offset: ClockOffset = field(default_factory=ClockOffset)
    counts: dict[str, int] = field(default_factory=dict)
    ended_at: float | None = None
    stood_still: bool = False


class WorkerPool:
    """The worker pool is an async context: its processes are ready on entry, and have ended on exit.

    Args:
        spec: the load.
        workers: how many processes there are.
        hosts: hosts that the processes run on, in turn; none for this host.

    Raises:
        InputError: the workload can't be used (its dataset, a missing key).
        RunError: a process died before it was ready, or does not report its clock; there is no temporary
            folder to be had.
    """

    def __init__(self, spec: ClientSpec, workers: int, hosts: Sequence[Host] = ()) -> None:
        self._spec, self.count = spec, workers
        self._hosts = tuple(hosts) or (Host(name=socket.gethostname()),)
        try:
            self._folder = LoadFolder(self._hosts[0].directory)
            self.directory = self._folder.path
            (self.directory / "spec.json").write_text(json.dumps(to_json(spec)), "utf-8")
        except OSError as error:
            raise RunError(
                f"no temporary folder for the load client ({error}); TMPDIR names another"
            ) from error
        self.members: list[WorkerProcess] = []
        self._readers: list[asyncio.Task[None]] = []
        self._due = math.inf
        """When all processes have to have ended, as `time.perf_counter()` counts."""
        self._stopped = False

    async def __aenter__(self) -> WorkerPool:
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
        lasts_s = self._spec.rules.point_timeout_s / self._spec.time_scale
        self._due = origin_ns * 1e-9 + lasts_s + LATE_S
        if self._stopped:
            self.stop()
        return origin_ns

    @property
    def started(self) -> bool:
        """Whether the load was started."""
        return self._due < math.inf

    def stop(self) -> None:
        """Cuts the load off; the records so far are kept.

        Before the start it waits for that; processes that are not ready soon are ended instead.
        """
        if not self.started:
            self._stopped = True
            asyncio.get_running_loop().call_later(STOPPED_LATE_S, self._give_up)
            return
        self._due = min(self._due, time.perf_counter() + STOPPED_LATE_S)
        for member in self.members:
            member.helper.tell("stop")

    def _give_up(self) -> None:
        """Ends all processes, unless the load was started meanwhile."""
        for member in () if self.started else self.members:
            member.helper.signal(signal.SIGTERM if member.helper.host.launch else signal.SIGKILL)

    async def wait(self) -> None:
        """Waits until every process has ended; one that stands still long after its time is ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._ended_in_time():
                return
            self._due = time.perf_counter() + SIGNALLED_S
            for member in self.members:
                if member.ended_at is None:
                    member.stood_still = True
                    # A launcher can end what it launched elsewhere, where SIGKILL would leave it.
                    member.helper.signal(number if member.helper.host.launch else signal.SIGKILL)
        await self._ended_in_time()

    async def _ended_in_time(self) -> bool:
        """Waits until every process has ended, or its time is over; returns whether all have."""
        while waiting := [reader for reader in self._readers if not reader.done()]:
            left_s = self._due - time.perf_counter()
            if left_s < 0:
                return False
            await asyncio.wait(waiting, timeout=min(left_s, LOOK_EVERY_S))
        await asyncio.gather(*self._readers)
        return True

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
        if member.stood_still:
            end = "stood still after the time at which it had to end, and was killed"
        elif status is not None and status < 0:
            end = f"was killed by signal {-status}"
        return f"load client {member.number} {end}: {member.helper.last_words() or NO_MESSAGE}"

    def end_of(self, member: WorkerProcess) -> float:
        """Returns when a process ended, as `time.perf_counter()` counts; now, where not even SIGKILL did."""
        return time.perf_counter() if member.ended_at is None else member.ended_at

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
        self._folder.remove()


class LoadFolder:
    """A load folder holds what the processes of one load read and write. It is removed at the load's end.

    A run that was killed leaves its folder behind; the next load removes it. A lock shows whose run lives: it
    goes with its process, on every host that sees the folder.

    Args:
        place: where the folder is made; None for the folder of temporary files.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, place: Path | None) -> None:
        for folder in Path(place or tempfile.gettempdir()).glob(f"{PREFIX}*"):
            if _is_left_over(folder):
                shutil.rmtree(folder, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        unlocked = self.path / f".{LOCK}"
        self._lock = unlocked.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(self.path / LOCK)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _is_left_over(folder: Path) -> bool:
    """Returns whether the run that made a folder is gone; False where nobody can tell."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
