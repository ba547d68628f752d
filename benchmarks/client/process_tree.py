"""CPU and memory of a process and all that it started, sampled while it runs."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SAMPLE_S = 0.01
LOOK_FOR_CHILDREN_S = 0.25
PSS_S = 0.5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CPU_CLOCK = 2
"""Of a process, by the kernel's scheduler: the low bits of a clock id, see clock_getcpuclockid(3)."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns over time: CLOCK_MONOTONIC in ns, CPU in s, memory in bytes (PSS: nan between looks).

    `cpu_s` is the tree's since its start, `busy_s` the whole machine's since it was booted.
    """

    at_ns: np.ndarray
    cpu_s: np.ndarray
    busy_s: np.ndarray
    rss: np.ndarray
    pss: np.ndarray

    def cpu_between_s(self, begin_ns: int, end_ns: int) -> float:
        """CPU that the tree used between two times, interpolated."""
        begin, end = np.interp([begin_ns, end_ns], self.at_ns, self.cpu_s)
        return float(end - begin)

    def busy_between_s(self, begin_ns: int, end_ns: int) -> float:
        """CPU that the whole machine used between two times, interpolated."""
        begin, end = np.interp([begin_ns, end_ns], self.at_ns, self.busy_s)
        return float(end - begin)

    def peaks(self, begin_ns: int, end_ns: int) -> tuple[int | None, int | None]:
        """The most resident bytes and the most proportional bytes between two times."""
        within = (self.at_ns >= begin_ns) & (self.at_ns <= end_ns)
        rss, pss = self.rss[within], self.pss[within]
        pss = pss[~np.isnan(pss)]
        return (int(rss.max()) if len(rss) else None, int(pss.max()) if len(pss) else None)


class TreeSampler:
    """Samples a process tree in a thread, from `start` until `stop`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu_s: dict[int, float] = {}
        self._rows: list[tuple[int, float, float, int, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> Samples:
        """End, and return what was sampled."""
        self._ended.set()
        self._thread.join()
        rows = self._rows or [(time.monotonic_ns(), 0.0, 0.0, 0, float("nan"))]
        columns = tuple(np.array(column) for column in zip(*rows, strict=True))
        return Samples(*columns)

    def _sample(self) -> None:
        looked_s = pss_s = 0.0
        pids = [self._pid]
        while not self._ended.wait(SAMPLE_S):
            now_s = time.monotonic()
            if now_s - looked_s > LOOK_FOR_CHILDREN_S:
                pids, looked_s = tree_of(self._pid), now_s
            rss = sum(resident_bytes(pid) for pid in pids)
            at_ns = time.monotonic_ns()
            for pid in pids:
                self._cpu_s[pid] = max(self._cpu_s.get(pid, 0.0), cpu_of_s(pid))
            pss = float("nan")
            if now_s - pss_s > PSS_S:
                pss, pss_s = float(sum(proportional_bytes(pid) for pid in pids)), now_s
            self._rows.append((at_ns, sum(self._cpu_s.values()), machine_busy_s(), rss, pss))


def machine_busy_s() -> float:
    """CPU seconds of the whole machine that were not idle."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def tree_of(pid: int) -> list[int]:
    """A process and its descendants; those that have just gone are missing."""
    found, index = [pid], 0
    while index < len(found):
        for task in Path(f"/proc/{found[index]}/task").glob("*/children"):
            try:
                found += [int(word) for word in task.read_text().split()]
            except OSError:
                continue
        index += 1
    return found


def cpu_of_s(pid: int) -> float:
    """CPU seconds of a process, threads that ended included; 0 if it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | CPU_CLOCK) / 1e9
    except OSError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """RSS of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """PSS of a process: shared pages count by the share of each; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
