"""One process of the load client.

    python -m mtpbench.load.worker DIRECTORY NUMBER WORKERS

The process reads DIRECTORY/spec.json, prepares its share of the requests and prints that it is ready. It
prints its clock each time the parent asks for it (see `remote`). Standard input names the moment of the start
(`go NANOSECONDS`, a value of this host's `time.perf_counter_ns()`). While it sends, the process prints its
counts of requests; at the end it writes its records into DIRECTORY. `stop` on standard input, or the end of
standard input, cuts the load off.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mtpbench.errors import InputError, MtpbenchError
from mtpbench.load.capacity import SPARE_DESCRIPTORS, raise_descriptor_limit
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.request_log import RequestLog
from mtpbench.load.transport import ProcessMonitor, Scheduler, Transport, TransportOptions
from mtpbench.reaper import die_with_parent
from mtpbench.records import from_json

STOPPED = "stopped"
_STDIN, _STDOUT = 0, 1


class ControlChannel(Protocol):
    """A control channel connects a worker with the process that started it."""

    stop_descriptor: int | None
    """A descriptor that becomes readable when the load is to be cut off, or None."""

    def await_start(self) -> int | None:
        """Reports that the worker is prepared, and waits for the start.

        Returns:
            The `time.perf_counter_ns()` value to start at; None if the load is not to start.
        """

    def report(self, counts: dict[str, int]) -> None:
        """Sends the worker's counts of requests and tokens so far."""


class LoadWorker:
    """A load worker sends one process's share of a load.

    Args:
        spec: the load.
        directory: where the worker writes its records.
        number, workers: which share this is, of how many.
        channel: tells the worker when to start and when to stop.
    """

    def __init__(
        self, spec: ClientSpec, directory: Path, number: int, workers: int, channel: ControlChannel
    ) -> None:
        self._directory, self._number, self._channel, self.spec = directory, number, channel, spec
        prompts, schedule = spec.prepare()
        self._slots = len(range(number, spec.concurrency, workers))
        self._descriptors = raise_descriptor_limit(self._slots + SPARE_DESCRIPTORS)
        log = RequestLog(directory, number)
        self.scheduler = Scheduler(spec, prompts, schedule.share(number, workers), log, 2 * self._slots)
        self.monitor = ProcessMonitor(self._report, self._slots)
        self._options = TransportOptions(
            scheduler=self.scheduler,
            monitor=self.monitor,
            path=prompts.path,
            stop_descriptor=channel.stop_descriptor,
            on_stop=self._cut_off,
        )

    def run(self) -> None:
        """Waits for the start, sends the share, and writes the records."""
        transport = self._make_transport()
        try:
            transport.open(self._slots)
            if self._await_start():
                transport.run()
        finally:
            transport.close()
        self._finish()

    def _make_transport(self) -> Transport:
        """Makes the transport that the load names.

        Each is imported here only: a process needs one of them, and aiohttp takes a while to load.
        """
        if self.spec.load.transport == "aiohttp":
            from mtpbench.load.transport_aiohttp import AiohttpTransport

            return AiohttpTransport(self._options)
        from mtpbench.load.transport_epoll import EpollTransport

        return EpollTransport(self._options)

    def _await_start(self) -> bool:
        start_ns = self._channel.await_start()
        if start_ns is None:
            return False
        self.scheduler.origin_ns = start_ns
        while (remaining_ns := start_ns - time.perf_counter_ns()) > 0:
            if remaining_ns > 2_000_000:
                time.sleep((remaining_ns - 1_000_000) * 1e-9)
        return True

    def _cut_off(self) -> None:
        self.scheduler.cut_off = STOPPED

    def _report(self, scheduler: Scheduler) -> None:
        self._channel.report(
            {
                "ended": scheduler.log.ended,
                "failed": scheduler.failed,
                "in_flight": len(scheduler.flights),
                "output_tokens": scheduler.tokens(),
            }
        )

    def _finish(self) -> None:
        scheduler, monitor = self.scheduler, self.monitor
        self._report(scheduler)
        monitor.save(self._directory / f"{self._number}.monitor.npz", scheduler.pauses.table())
        scheduler.log.close()
        summary = {
            "cut_off": scheduler.cut_off,
            "unreachable": scheduler.unreachable,
            "refused": scheduler.refused,
            "missed_done": scheduler.missed_done,
            "retried": scheduler.retried,
            "waited": scheduler.pacer.waited,
            "unsent": scheduler.pacer.unsent,
            "stamps": monitor.stamps,
            "clock_drift_us": monitor.clock_drift_us,
            "clock_step_us": monitor.clock_step_us,
            "user_stamped": monitor.user_stamped,
            "misstamped": monitor.misstamped,
            "descriptors": self._descriptors,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (self._directory / f"{self._number}.summary.json").write_text(json.dumps(summary), "utf-8")


class StandardStreams:
    """The control channel over standard input and output.

    Standard input brings `clock N` lines, then `go NANOSECONDS`; `stop`, or the end of input, cuts the load
    off.
    """

    stop_descriptor: int | None = _STDIN

    def await_start(self) -> int | None:
        """See `ControlChannel.await_start`."""
        self._write({"ready": True})
        while True:
            command, _, value = self._read_line().partition(" ")
            if command != "clock":
                return int(value) if command == "go" else None
            self._write({"n": value, "clock": time.perf_counter_ns()})

    def report(self, counts: dict[str, int]) -> None:
        """See `ControlChannel.report`."""
        self._write(counts)

    @staticmethod
    def _read_line() -> str:
        """Reads one line of standard input and not a byte more: the rest is for `stop_descriptor`."""
        line = bytearray()
        while (byte := os.read(_STDIN, 1)) and byte != b"\n":
            line += byte
        return line.decode("ascii")

    @staticmethod
    def _write(message: Mapping[str, object]) -> None:
        try:
            os.write(_STDOUT, json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, BlockingIOError):
            return  # the parent no longer reads; the end of standard input will show it


def main(arguments: Sequence[str]) -> int:
    """Runs one worker.

    Returns:
        The exit status: 0, or that of the error whose message was written to standard error.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which sends `stop`
    directory, number, workers = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    try:
        spec = from_json(ClientSpec, json.loads((directory / "spec.json").read_text("utf-8")))
        worker = LoadWorker(spec, directory, number, workers, StandardStreams())
        # Objects that exist now stay until the end; later ones are freed by their reference count alone.
        gc.collect()
        gc.freeze()
        gc.disable()
        worker.run()
    except (MtpbenchError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code if isinstance(error, InputError) else 1
    except MemoryError:
        sys.stderr.write("this machine lets the process have no more memory\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
