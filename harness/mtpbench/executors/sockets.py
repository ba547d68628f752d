"""Ports of this machine: free ones, taken ones, and whose they are (Linux /proc)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mtpbench.errors import PortInUse

HOST = "127.0.0.1"
_LISTEN = "0A"


def choose_port(wanted: int | None = None) -> int:
    """A free port, or `wanted` if it is free.

    Raises:
        PortInUse: `wanted` is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except (OSError, OverflowError) as error:
            raise PortInUse(
                f"port {wanted} on {HOST} can't be had ({getattr(error, 'strerror', error)}); "
                "stop what listens there, or choose another"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def listens_in_group(port: int, group: int) -> bool | None:
    """Whether a process of the group listens on the port; None where /proc does not tell.

    A stale server of an earlier run can answer /health on the same port: only its owner tells them apart.
    """
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if os.getpgid(pid) == group and _sockets(pid) & inodes:
                return True
        except (ProcessLookupError, PermissionError, FileNotFoundError):
            continue
    return False


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(fields[9])
    return inodes


def _sockets(pid: int) -> set[str]:
    found = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(handle)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found
