"""Power of Grace CPUs through Linux's hwmon: one rail for each socket, never the rail that holds a GPU too.

Source: NVIDIA Grace Performance Tuning Guide, power telemetry: `power1_average` in µW, `power1_oem_info` says
`Grace|CPU|SysIO|Module Power Socket N` (some firmware says `Input Power`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mtpbench.power.source import MeterReading, MeterState, Probe, unread
from mtpbench.records import PowerSource

HWMON = Path("/sys/class/hwmon")
LABEL = re.compile(r"(Grace|CPU|SysIO|Module)(?: Input)? Power(?: Input)? Socket (\d+)", re.IGNORECASE)
RAILS: tuple[Literal["grace", "cpu"], ...] = ("grace", "cpu")
"""The whole CPU socket with its memory and fabric first, its cores alone else; `Module` holds the GPU too."""


class GraceSource:
    """Reads one rail for each Grace socket; a `Source`.

    Args:
        root: where hwmon is; a test's folder else.
    """

    def __init__(self, root: Path = HWMON) -> None:
        self._root = root
        self._files: dict[int, Path] = {}

    def probe(self) -> Probe:
        """The rail that every socket has, or why there is none."""
        found: dict[tuple[str, int], Path] = {}
        for info in sorted(self._root.glob("*/device/power*_oem_info")):
            match = LABEL.search(_text(info))
            average = info.with_name(info.name.replace("_oem_info", "_average"))
            if match and _microwatts(average) is not None:
                found[match[1].lower(), int(match[2])] = average
        if not found:
            return Probe(kind="grace", reason=unread("no_grace", f"no Grace power rail under {self._root}"))
        sockets = sorted({socket for _, socket in found})
        for rail in RAILS:
            if all((rail, socket) in found for socket in sockets):
                self._files = {socket: found[rail, socket] for socket in sockets}
                label = {"grace": "Grace", "cpu": "CPU cores"}[rail]
                return Probe(
                    kind="grace",
                    source=PowerSource(meter="grace", scope="grace", rail=rail),
                    meters=tuple((socket, f"{label} Power Socket {socket}") for socket in sockets),
                )
        listed = ", ".join(f"{rail} {socket}" for rail, socket in sorted(found))
        gap = f"no rail is there for every socket ({listed})"
        return Probe(kind="grace", reason=unread("grace_rails", gap))

    def read(self) -> list[MeterReading]:
        """The power of every socket."""
        return [
            MeterReading(
                meter=socket, power_w=None if (uw := _microwatts(path)) is None else uw / 1e6, energy_j=None
            )
            for socket, path in self._files.items()
        ]

    def states(self) -> list[MeterState]:
        """Nothing besides."""
        return []

    def close(self) -> None:
        """Nothing is held."""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _microwatts(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
