"""Limits of this machine that a load client can run into: open files and local ports."""

from __future__ import annotations

import resource
from pathlib import Path

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
