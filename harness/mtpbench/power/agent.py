"""The sampler of one node: a process that reads its power sources at an interval and writes each reading.

    python -m mtpbench.power.agent --out FILE [--interval 0.1] [--gpus 0,1] [--spares 2,3] [--dcgm URL]

It is a helper (see `remote`), ready when the file has its first reading. It ends when its standard input
closes or at SIGTERM. Besides `clock` it answers:

    tick N    reads once more, syncs the file for all hosts, and answers {"n": N, "size": its bytes,
              "from": where in it the GPUs' last reading before this one begins}

The sampler keeps nothing in memory: each tick is one write, so readings stay when the process dies. It
imports little: it must start fast and cost less than 1% of a core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from mtpbench.power import watts
from mtpbench.power.log import (
    MeterReading,
    MeterState,
    Source,
    SourceProbe,
    end_line,
    head_line,
    late_line,
    states_line,
    tick_line,
    unread,
)
from mtpbench.power.nvml import NvmlSource
from mtpbench.records import PowerSource

INTERVAL_S = 0.1
STATES_EVERY_S = 1.0
LATE_S = 0.5
"""A read that takes longer is dropped and shows as a gap: when within it the meter was read is unknown."""
HWMON = Path("/sys/class/hwmon")
LABEL = re.compile(r"(Grace|CPU|SysIO|Module)(?: Input)? Power(?: Input)? Socket (\d+)", re.IGNORECASE)
RAILS: tuple[Literal["grace", "cpu"], ...] = ("grace", "cpu")
"""The whole CPU socket with memory and fabric is preferred to its cores; `Module` would hold the GPU too."""


class GraceSource:
    """The Grace source reads one rail of each Grace socket through Linux's hwmon; it is a `Source`.

    NVIDIA's Grace Performance Tuning Guide: `power1_average` is in µW, `power1_oem_info` says
    `Grace|CPU|SysIO|Module Power Socket N` (some firmware says `Input Power`).

    Args:
        root: the folder of hwmon, or a test's.
    """

    def __init__(self, root: Path = HWMON) -> None:
        self._root = root
        self._files: dict[int, Path] = {}

    def probe(self) -> SourceProbe:
        """Returns the rail that every socket has, or why there is none."""
        rails: dict[tuple[str, int], Path] = {}
        for info in sorted(self._root.glob("*/device/power*_oem_info")):
            match = LABEL.search(_text(info))
            average = info.with_name(info.name.replace("_oem_info", "_average"))
            if match and _microwatts(average) is not None:
                rails[match[1].lower(), int(match[2])] = average
        if not rails:
            return SourceProbe(
                kind="grace", reason=unread("no_grace", f"no Grace power rail under {self._root}")
            )
        sockets = sorted({socket for _, socket in rails})
        for rail in RAILS:
            if all((rail, socket) in rails for socket in sockets):
                self._files = {socket: rails[rail, socket] for socket in sockets}
                label = {"grace": "Grace", "cpu": "CPU cores"}[rail]
                return SourceProbe(
                    kind="grace",
                    source=PowerSource(meter="grace", scope="grace", rail=rail),
                    meters=tuple((socket, f"{label} Power Socket {socket}") for socket in sockets),
                )
        labels = ", ".join(f"{rail} {socket}" for rail, socket in sorted(rails))
        gap = f"no rail is there for every socket ({labels})"
        return SourceProbe(kind="grace", reason=unread("grace_rails", gap))

    def read(self) -> list[MeterReading]:
        """Returns the power of every socket."""
        return [
            MeterReading(meter=socket, power_w=watts(_microwatts(path), 1e6), energy_j=None)
            for socket, path in self._files.items()
        ]

    def states(self) -> list[MeterState]:
        """Returns no states: the rails have none."""
        return []

    def close(self) -> None:
        """Does nothing: no resource is held."""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _microwatts(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def main(argv: list[str] | None = None) -> int:
    """Samples until the process is told to end or its input closes, and once more then."""
    arguments = _parse(argv)
    gpus = tuple(filter(None, arguments.gpus.split(",")))
    with arguments.out.open("ab", buffering=0) as file:
        sampler = NodeSampler(file.fileno(), arguments.interval)
        sampler.probe(gpus, tuple(filter(None, arguments.spares.split(","))), arguments.dcgm, arguments.hwmon)
        sampler.tick()
        os.write(sys.stdout.fileno(), b'{"ready": true}\n')
        sampler.run(sys.stdin.fileno(), sys.stdout.fileno())
    return 0


class NodeSampler:
    """The sampler of a node reads one source of GPU power at most, and the Grace rails, into an open file.

    Args:
        file: a descriptor, written to with one call for each tick.
        interval_s: seconds from one tick to the next, 0.1 to 0.25.
    """

    def __init__(self, file: int, interval_s: float) -> None:
        self._file, self._interval_s = file, interval_s
        self._sources: list[tuple[str, Source]] = []
        self._states_due_s = 0.0
        self._size = self._gpus_from = os.fstat(file).st_size

    def probe(self, gpus: tuple[str, ...], spares: tuple[str, ...], dcgm: str | None, hwmon: Path) -> None:
        """Probes every source and writes the results down; the first source that has the GPUs reads them.

        Args:
            gpus: GPUs that must be read.
            spares: GPUs that are read too where they can be.
            dcgm: the metrics page of an exporter, or None.
            hwmon: the folder of the Grace rails.
        """
        candidates: list[tuple[str, Source]] = [("gpu", NvmlSource(gpus, spares=spares))]
        if dcgm is not None:
            from mtpbench.power.dcgm import (
                DcgmSource,  # reading pages takes as long to import as all the rest
            )

            candidates.append(("gpu", DcgmSource(dcgm, gpus)))
        candidates.append(("grace", GraceSource(hwmon)))
        probes: list[SourceProbe] = []
        for kind, source in candidates:
            if kind in (taken for taken, _ in self._sources):
                probes.append(SourceProbe(kind="dcgm", reason=unread("not_needed", "NVML reads these GPUs")))
                continue
            probes.append(_without_double_counting(source.probe(), probes))
            if probes[-1].reason is None:
                self._sources.append((kind, source))
        self._write(head_line(probes, self._interval_s))

    def tick(self) -> int:
        """Reads every source once; returns the place in the file of the GPUs' last reading before it."""
        last = self._gpus_from
        for kind, source in self._sources:
            before, wall = time.monotonic(), time.time()
            readings = source.read()
            took_s = time.monotonic() - before
            durations = [max(reading.took_s, took_s if reading.at_s is None else 0.0) for reading in readings]
            late = [reading for reading, s in zip(readings, durations, strict=True) if _is_late(reading, s)]
            if late:
                self._write(late_line(before, wall, [reading.meter for reading in late], max(durations)))
            if timely := [reading for reading in readings if reading not in late]:
                if kind == "gpu":
                    self._gpus_from = self._size
                self._write(tick_line(before + took_s / 2, wall + took_s / 2, kind, timely))
        if self._sources and time.monotonic() >= self._states_due_s:
            self._states_due_s = time.monotonic() + STATES_EVERY_S
            states = [state for kind, source in self._sources if kind == "gpu" for state in source.states()]
            if states:
                self._write(states_line(time.monotonic(), time.time(), states))
        return last

    def run(self, questions: int, answers: int) -> None:
        """Reads at every interval until the input closes or SIGTERM comes, then once more."""
        ends, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"t"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run, which then closes the input
        due, why, pending = time.monotonic() + self._interval_s, "", b""
        while not why:
            wait_s = max(0.0, due - time.monotonic()) if self._sources else None
            readable, _, _ = select.select([ends, questions], [], [], wait_s)
            if ends in readable:
                why = "SIGTERM"
            elif questions in readable:
                received = os.read(questions, 4096)
                *lines, pending = (pending + received).split(b"\n")
                why = "" if received else "told to end"
                for line in lines:
                    self._answer(line, answers)
            else:
                self.tick()
                # A late tick is not made up for: two readings at once add nothing.
                due = max(due + self._interval_s, time.monotonic())
        self.tick()
        self._write(end_line(time.monotonic(), time.time(), why))
        for _, source in self._sources:
            source.close()

    def _answer(self, line: bytes, answers: int) -> None:
        question, _, number = line.decode("ascii", "replace").partition(" ")
        if question == "clock":
            answer = {"clock": time.monotonic_ns()}
        else:
            last = self.tick()
            # Other hosts see only what has reached the file server.
            os.fsync(self._file)
            answer = {"size": self._size, "from": last}
        with contextlib.suppress(BrokenPipeError):
            os.write(answers, json.dumps({"n": number, **answer}).encode() + b"\n")

    def _write(self, line: str) -> None:
        self._size += os.write(self._file, line.encode())


def _is_late(reading: MeterReading, took_s: float) -> bool:
    """Returns whether a reading took too long; one that carries its own time never did."""
    return reading.unix_s is None and took_s > LATE_S


def _without_double_counting(probe: SourceProbe, earlier: list[SourceProbe]) -> SourceProbe:
    """Returns the probe, refused where it is a Grace rail that the GPUs' counter covers already."""
    covered = any(other.source is not None and other.source.scope == "module" for other in earlier)
    if probe.kind == "grace" and probe.reason is None and covered:
        reason = unread("grace_in_module", "the GPUs' counter covers their Grace already")
        return SourceProbe(kind="grace", reason=reason)
    return probe


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mtpbench.power.agent", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--interval", type=float, default=INTERVAL_S)
    parser.add_argument("--gpus", default="", help="indices or UUIDs, with commas; all by default")
    parser.add_argument("--spares", default="", help="GPUs that are read too, where they can be")
    parser.add_argument("--dcgm", help="a DCGM exporter's metrics page, where NVML can't be used")
    parser.add_argument("--hwmon", type=Path, default=HWMON)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
