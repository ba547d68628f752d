"""The capacity of one client process: its measured ceiling, and the limits of open files and ports.

Every client process imports this module, so it needs neither asyncio nor the client (see `ceiling`).
"""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from mtpbench.errors import RunError, SweepError
from mtpbench.input_files import read_json
from mtpbench.records import Point, from_json

SPARE_DESCRIPTORS = 256
LEAST_DESCRIPTORS, LEAST_SPARE = 64, 24
"""Files without which a run can't be, and those that a process needs besides what `files_needed` counts: 9 or
10 were seen open in a client process, 15 in the embedded engine and its router, 10 in the run itself."""
FILES_PER_SERVER, FILES_PER_CLIENT = 2, 4
"""Files that the run has open for each server (2.0 with 17 and 31 of them) and each client process."""
_TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.EIO),
)
"""What a file system refuses, whoever asks."""
_NO_THREAD = "can't start new thread"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def raise_descriptor_limit(needed: int) -> int:
    """Raises this process's soft limit of open files to `needed` if the hard limit allows it.

    Returns:
        The soft limit now; below `needed` if the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(soft, raised)


def files_needed(point: Point) -> int:
    """Returns how many open files a point needs, in the process that opens the most.

    That is the run itself, a client process, or the embedded engine: its router has a connection of each
    request to the client, and one to each worker that serves it. What real servers open is theirs to know.
    """
    topology, concurrency = point.topology, point.concurrency
    servers = sum(group.workers for group in topology.groups) + 1
    clients = min(point.load.workers or usable_cores(), concurrency)
    counts = [FILES_PER_SERVER * servers + FILES_PER_CLIENT * clients, -(-concurrency // clients)]
    if point.simulation is not None:
        counts.append(concurrency * (3 if topology.disaggregated else 2 if servers > 2 else 1))
    return max(LEAST_DESCRIPTORS, max(counts) + LEAST_SPARE)


def least_workers(connections: int) -> int:
    """Returns how many client processes so many connections need at least, by the limit of open files."""
    limit = most_descriptors()
    if limit is None or limit <= LEAST_SPARE:
        return 1
    return min(-(-connections // (limit - LEAST_SPARE)), usable_cores())


def refuse_few_descriptors(needed: int) -> None:
    """Checks, before anything starts, that this machine lets a run open enough files; raises the soft limit.

    Args:
        needed: the most files that one of its processes opens.

    Raises:
        RunError: the hard limit is lower; says what is needed.
    """
    needed = max(LEAST_DESCRIPTORS, needed)
    if (allowed := raise_descriptor_limit(needed)) not in range(needed):
        return
    raise RunError(
        f"this machine lets a process open {allowed} files; this run needs {needed} (`ulimit -n`, `nofile` "
        "in limits.conf, LimitNOFILE= of a service)"
    )


def limit_met(error: BaseException) -> str | None:
    """Returns which limit of this machine an error shows; None where it shows none."""
    if isinstance(error, MemoryError):
        return "this machine lets the process have no more memory (`ulimit -v`, a container's limit)"
    if isinstance(error, OSError) and error.errno in _TOO_MANY:
        return f"this machine lets no more be opened or started ({error.strerror}; `ulimit -n`, `ulimit -u`)"
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, RuntimeError) and error.args == (_NO_THREAD,):
        return "this machine lets no more threads start (`ulimit -u`, pids.max of a container)"
    return None


def most_descriptors() -> int | None:
    """Returns how many files a process may have open; None for no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def local_ports() -> int | None:
    """Returns how many connections to one address the local ports allow; None if that is unknown."""
    try:
        low, high = (int(number) for number in _PORT_RANGE.read_text("ascii").split())
    except (OSError, ValueError):
        return None
    return high - low + 1


STEP_S = 0.02
"""The step of the mock that ceilings are measured against."""
ASSUMED_EVENTS_PER_S = 40_000.0
"""The assumed ceiling of one process, if none was measured on this machine."""
EVENTS_PER_STREAM = 10.0
"""Assumed events per second of one stream, if there is no estimate."""
USED_SHARE = 0.5
"""The planned share of a process's ceiling: above it a short disturbance makes a point invalid."""
_LATE_STEPS = 0.05
_COALESCED = 0.01
_FILE = "client-ceiling.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A rung is one number of streams, and how the client kept up with them.

    Args:
        streams: streams in flight.
        events_per_s: events that one client process took, per second of the window.
        cpu_share: its CPU seconds per second.
        lag_p50_s, lag_p99_s: from the bytes' arrival to the read.
        coalesced_share: share of the reads that held events of several moments.
        mock_late: share of the mock's steps that came late.
        stamps: where stamps came from, `kernel` or `user`.
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
        """Whether the client read in time."""
        lag, coalesced = self.lag_p99_s, self.coalesced_share
        return lag is not None and lag < STEP_S and coalesced is not None and coalesced <= _COALESCED

    @property
    def mock_was_the_limit(self) -> bool:
        """Whether the mock, not the client, was too slow."""
        return self.mock_late > _LATE_STEPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """The ceiling: the most events per second that one client process of this machine can take.

    Args:
        events_per_s: the most that the client kept up with.
        at_least: whether the mock, the open files or the last rung ended the search, not the client.
        rungs: every number of streams that was measured.
        measured_utc: when the ceiling was measured.
        cores: the machine's cores that the process could run on.
    """

    events_per_s: float
    at_least: bool
    rungs: tuple[Rung, ...]
    measured_utc: str
    cores: int


def usable_cores() -> int:
    """Returns how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(events_per_s: float, ceiling: Ceiling | None) -> int:
    """Returns how many client processes the events need, with room to spare; no more than cores."""
    per_worker = USED_SHARE * ceiling.events_per_s if ceiling else ASSUMED_EVENTS_PER_S
    return max(1, min(-(-int(events_per_s) // int(per_worker)), usable_cores()))


def store_ceiling(ceiling: Ceiling) -> Path:
    """Writes the ceiling to where `stored_ceiling` reads it; returns that path.

    Raises:
        StoreError: the file can't be written.
    """
    from mtpbench.store import json_text, replace_file  # a client process needs no store: it imports Parquet

    path = _path()
    replace_file(path, json_text(ceiling), parents=True)
    return path


def stored_ceiling() -> Ceiling | None:
    """Reads the ceiling of this machine; None if none was measured, or its cores have changed."""
    try:
        ceiling = from_json(Ceiling, read_json(_path(), MOST_BYTES))
    except (SweepError, ValueError):
        return None
    return ceiling if ceiling.cores == usable_cores() and ceiling.events_per_s > 0 else None


MOST_BYTES = 1 << 16


def _path() -> Path:
    if folder := os.environ.get("MTPBENCH_CACHE"):
        return Path(folder) / _FILE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtpbench" / _FILE
