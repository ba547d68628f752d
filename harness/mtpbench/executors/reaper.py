"""The reaper kills the process groups of a run that was itself killed.

The local executor starts this file as a process of its own and writes `+PGID` or `-PGID` lines to its
standard input. When that closes (the run ended, or was killed with SIGKILL), every group still listed
gets SIGTERM and, 3 seconds later, SIGKILL. Standard library only; it must start fast and outlive Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_S = 3.0


def watch(lines: object) -> set[int]:
    """Reads lines until the end, and returns the process groups that are still registered then."""
    groups: set[int] = set()
    for line in lines:  # type: ignore[attr-defined]
        group = int(line[1:])
        groups.add(group) if line[0] == "+" else groups.discard(group)
    return groups


def reap(groups: set[int], grace_s: float = GRACE_S) -> None:
    """Ends every group: SIGTERM, up to `grace_s` seconds, SIGKILL, and as long again until all are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        deadline = time.monotonic() + grace_s
        while any(map(is_alive, groups)) and time.monotonic() < deadline:
            time.sleep(0.02)


def is_alive(group: int) -> bool:
    """Returns whether a process group still has a process that runs; zombies do not count."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not os.path.exists("/proc/self/stat"):
        return True
    return any(_runs_in(group, pid) for pid in os.listdir("/proc") if pid.isdigit())


def _runs_in(group: int, pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state, _, its_group = stat.read().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(its_group) == group and state not in "ZX"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reap(watch(sys.stdin))
