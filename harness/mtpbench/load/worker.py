"""One process of the load client.

    python -m mtpbench.load.worker DIRECTORY NUMBER OF

It reads DIRECTORY/spec.json, prepares its share, says that it is ready, tells its clock as often as it is
asked (see `remote`), starts at the moment that standard input names (`go NANOSECONDS`, a value of this
host's `time.perf_counter_ns()`), says how far it is, and writes what happened into DIRECTORY. `stop` on
standard input, or its end, cuts the load off.
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
from mtpbench.load.transport import Scheduler, SelfWatch, Transport, TransportOptions
from mtpbench.records import from_json

STOPPED = "stopped"
_STDIN, _STDOUT = 0, 1


class Voice(Protocol):
    """How a worker is spoken to, and speaks."""

    control: int | None
    """A descriptor that becomes readable when the load is to be cut off."""

    def await_start(self) -> int | None:
        """Say that all is prepared; the `time.perf_counter_ns()` value to start at, None for not at all."""

    def say(self, message: dict[str, int]) -> None:
        """Tell how far things are."""


class LoadWorker:
    """One process's part of a spec.

    Args:
        spec: the load.
        directory: where it writes.
        number, of: which of how many shares.
        voice: who says when to start and stop.
    """

    def __init__(self, spec: ClientSpec, directory: Path, number: int, of: int, voice: Voice) -> None:
        self._directory, self._number, self._voice, self.spec = directory, number, voice, spec
        prompts, schedule = spec.prepare()
        self._slots = len(range(number, spec.concurrency, of))
        self._descriptors = raise_descriptor_limit(self._slots + SPARE_DESCRIPTORS)
        log = RequestLog(directory, number)
        self.scheduler = Scheduler(spec, prompts, schedule.share(number, of), log, 2 * self._slots)
        self.watch = SelfWatch(self._report, self._slots)
        self._options = TransportOptions(
            scheduler=self.scheduler,
            watch=self.watch,
            path=prompts.path,
            control=voice.control,
            hear=self._hear,
        )

    def run(self) -> None:
        """Wait for the start, send the share, write everything down."""
        transport = self._make_transport()
        try:
            transport.open(self._slots)
            if self._await_start():
                transport.run()
        finally:
            transport.close()
        self._finish()

    def _make_transport(self) -> Transport:
        """Imported here: a process needs only one of them, and aiohttp's takes a while to load."""
        if self.spec.load.transport == "aiohttp":
            from mtpbench.load.transport_aiohttp import AiohttpTransport

            return AiohttpTransport(self._options)
        from mtpbench.load.transport_epoll import EpollTransport

        return EpollTransport(self._options)

    def _await_start(self) -> bool:
        moment = self._voice.await_start()
        if moment is None:
            return False
        self.scheduler.origin_ns = moment
        while (left_ns := moment - time.perf_counter_ns()) > 0:
            if left_ns > 2_000_000:
                time.sleep((left_ns - 1_000_000) * 1e-9)
        return True

    def _hear(self) -> None:
        self.scheduler.cut_off = STOPPED

    def _report(self, scheduler: Scheduler) -> None:
        self._voice.say(
            {
                "ended": scheduler.log.ended,
                "failed": scheduler.failed,
                "in_flight": len(scheduler.flights),
                "output_tokens": scheduler.tokens(),
            }
        )

    def _finish(self) -> None:
        scheduler, watch = self.scheduler, self.watch
        self._report(scheduler)
        watch.save(self._directory / f"{self._number}.watch.npz")
        scheduler.log.close()
        summary = {
            "cut_off": scheduler.cut_off,
            "unreachable": scheduler.unreachable,
            "refused": scheduler.refused,
            "missed_done": scheduler.missed_done,
            "retried": scheduler.retried,
            "waited": scheduler.pacer.waited,
            "unsent": scheduler.pacer.unsent,
            "stamps": watch.stamps,
            "clock_drift_us": watch.clock_drift_us,
            "clock_step_us": watch.clock_step_us,
            "descriptors": self._descriptors,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (self._directory / f"{self._number}.summary.json").write_text(json.dumps(summary), "utf-8")


class Pipes:
    """Standard input and output: `clock N`, then `go NANOSECONDS`; `stop`, or the end of input, cuts off."""

    control: int | None = _STDIN

    def await_start(self) -> int | None:
        """See `Voice.await_start`."""
        self._write({"ready": True})
        while True:
            word, _, value = self._read_line().partition(" ")
            if word != "clock":
                return int(value) if word == "go" else None
            self._write({"n": value, "clock": time.perf_counter_ns()})

    def say(self, message: dict[str, int]) -> None:
        """See `Voice.say`."""
        self._write(message)

    @staticmethod
    def _read_line() -> str:
        """One line of standard input and not a byte more: what follows is for the control."""
        line = bytearray()
        while (byte := os.read(_STDIN, 1)) and byte != b"\n":
            line += byte
        return line.decode("ascii")

    @staticmethod
    def _write(message: Mapping[str, object]) -> None:
        try:
            os.write(_STDOUT, json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, BlockingIOError):
            return  # nobody listens; the end of standard input will tell


def main(arguments: Sequence[str]) -> int:
    """Run one worker; the exit status is 0, or that of the error whose message stands in standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which says `stop`
    directory, number, of = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    try:
        spec = from_json(ClientSpec, json.loads((directory / "spec.json").read_text("utf-8")))
        worker = LoadWorker(spec, directory, number, of, Pipes())
        # What is there now stays; what comes is freed by count alone.
        gc.collect()
        gc.freeze()
        gc.disable()
        worker.run()
    except (MtpbenchError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
