"""Ends a private Slurm: when its tests are done, and also when they were killed.

`cluster.py` starts this file as a process of its own, with the path of the cluster's slurm.conf, and writes
the process id of every daemon to its standard input, in the order of their start. When that closes, jobs are
cancelled first (a slurmstepd without a controller retries for minutes and outlives its cluster), then the
daemons end in reverse order, then whatever else has this slurm.conf in its environment: jobs of nodes whose
slurmd was killed. Standard library only; Ctrl-C and SIGTERM do not stop it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection

DRAIN_S = 8.0
GRACE_S = 8.0
ANSWER_S = 10.0
JOB_ID = "%F"
"""Of a whole array: scancel does nothing for the number of one task, and says nothing."""


def watch(lines: object) -> list[int]:
    """Read process ids until the end, when it is time to end them."""
    return [int(line) for line in lines]  # type: ignore[attr-defined]


def drain(limit_s: float = DRAIN_S) -> None:
    """Cancel every job and wait until none is left; gives up when the controller does not answer."""
    until = time.monotonic() + limit_s
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        while time.monotonic() < until and (jobs := set(_client("squeue", "-h", "-o", JOB_ID).split())):
            _client("scancel", "--full", *sorted(jobs))
            time.sleep(0.1)


def end(pids: Collection[int], grace_s: float = GRACE_S) -> None:
    """End processes: SIGTERM (SIGCONT first: one may be frozen), up to `grace_s` seconds, SIGKILL."""
    for pid in pids:
        send(pid, signal.SIGCONT)
        send(pid, signal.SIGTERM)
    if not _until(lambda: not any(map(runs, pids)), grace_s):
        for pid in pids:
            send(pid, signal.SIGKILL)
        _until(lambda: not any(map(runs, pids)), grace_s)


def left_over(conf: str) -> set[int]:
    """Every process that belongs to a cluster, and its children.

    Told by this slurm.conf in their environment. A slurmstepd of 24.11 overwrites its own, and its slurmd may
    be dead; it is told by the cluster's log, which it has open.
    """
    mark, root = f"SLURM_CONF={conf}".encode(), os.path.dirname(os.path.dirname(conf))
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{pid}/environ", "rb") as environment:
                marked = mark in environment.read().split(b"\0")
            parents[pid] = int(_stat(pid)[1])
            if marked or _is_step_of(pid, f"{root}/log/"):
                found.add(pid)
    grew = True
    while grew:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grew = bool(children)
    return {pid for pid in found if pid != os.getpid() and runs(pid)}


def _is_step_of(pid: int, logs: str) -> bool:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        if comm.read().strip() != "slurmstepd":
            return False
    return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith(logs) for fd in os.listdir(f"/proc/{pid}/fd"))


def runs(pid: int) -> bool:
    """Whether a process runs; zombies that nobody collects do not."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()


def _until(reached: Callable[[], bool], limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while not (done := reached()) and time.monotonic() < until:
        time.sleep(0.02)
    return done


def _client(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    if done.returncode and words[0] == "squeue":
        raise OSError(done.stderr)
    return done.stdout


def main(conf: str) -> None:
    """Wait for the end, then end everything."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pids = watch(sys.stdin)
    for pid in pids:
        send(pid, signal.SIGCONT)
    drain()
    for pid in reversed(pids):
        end([pid])
    end(left_over(conf), 2.0)


if __name__ == "__main__":
    main(sys.argv[1])
