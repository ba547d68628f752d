"""What one client process of this machine can take: as measured, and by limits of open files and ports."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from mtpbench.records import from_json

SPARE_DESCRIPTORS = 256
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def raise_descriptor_limit(needed: int) -> int:
    """Raise this process's soft limit of open files to `needed` where the hard limit allows.

    Returns:
        The soft limit now; below `needed` where the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def most_descriptors() -> int | None:
    """How many files a process may have open; None for no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def local_ports() -> int | None:
    """How many connections to one address the local ports allow; None where that is unknown."""
    try:
        low, high = (int(word) for word in _PORT_RANGE.read_text("ascii").split())
    except (OSError, ValueError):
        return None
    return high - low + 1


STEP_S = 0.02
"""The step of the mock that ceilings are measured against."""
ASSUMED_EVENTS_PER_S = 40_000.0
"""What one process is taken to manage where nobody has measured it."""
EVENTS_PER_STREAM = 10.0
"""Assumed events per second of one stream where nothing estimates them."""
USED_SHARE = 0.5
"""A process is planned with this share of its ceiling: beyond it a hiccup costs a point."""
_LATE_STEPS = 0.05
_COALESCED = 0.01
_FILE = "client-ceiling.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """What one number of streams gave.

    Args:
        streams: streams in flight.
        events_per_s: events that one client process took, per second of the window.
        cpu_share: its CPU seconds per second.
        lag_p50_s, lag_p99_s: from the bytes' arrival to the read.
        coalesced_share: reads that held events of several moments.
        mock_late: share of the mock's steps that came late: it was the limit then.
        stamps: who stamped, `kernel` or `user`.
    """

    streams: int
    events_per_s: float
    cpu_share: float | None
    lag_p50_s: float | None
    lag_p99_s: float | None
    coalesced_share: float | None
    mock_late: float
    stamps: str | None

    @property
    def kept_up(self) -> bool:
        """Whether the client was in time."""
        lag, coalesced = self.lag_p99_s, self.coalesced_share
        return lag is not None and lag < STEP_S and coalesced is not None and coalesced <= _COALESCED

    @property
    def mock_was_the_limit(self) -> bool:
        """Whether the mock could not keep its own step."""
        return self.mock_late > _LATE_STEPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """What one client process of this machine can take.

    Args:
        events_per_s: the most that it kept up with.
        at_least: whether the mock, the open files or the last rung ended the search, not the client.
        rungs: everything that was measured.
        measured_utc: when.
        cores: of the machine, as far as this process may use them.
    """

    events_per_s: float
    at_least: bool
    rungs: tuple[Rung, ...]
    measured_utc: str
    cores: int


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(events_per_s: float, ceiling: Ceiling | None) -> int:
    """Client processes that so many events per second need, with room to spare; one core each at most."""
    each = USED_SHARE * ceiling.events_per_s if ceiling else ASSUMED_EVENTS_PER_S
    return max(1, min(-(-int(events_per_s) // int(each)), usable_cores()))


def keep(ceiling: Ceiling) -> Path:
    """Write the ceiling where `known` finds it.

    Raises:
        StoreError: it can't be written.
    """
    from mtpbench.store import json_text, replace_file  # not for a client process: it brings Parquet along

    path = _path()
    replace_file(path, json_text(ceiling), parents=True)
    return path


def known() -> Ceiling | None:
    """The ceiling that was measured on this machine; None where none was, or it no longer fits."""
    try:
        ceiling = from_json(Ceiling, json.loads(_path().read_text("utf-8")))
    except (OSError, ValueError):
        return None
    return ceiling if ceiling.cores == usable_cores() else None


def _path() -> Path:
    if chosen := os.environ.get("MTPBENCH_CACHE"):
        return Path(chosen) / _FILE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtpbench" / _FILE
