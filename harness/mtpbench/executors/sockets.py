"""Ports of this machine: free ones, taken ones, and whose they are (Linux /proc)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

from mtpbench.errors import PortInUse

HOST = "127.0.0.1"
_LISTEN = "0A"
FREE_PORTS = range(20_000, 32_768)
"""Where free ports are looked for: below those that Linux gives to clients, so that none is lost between the
choice and the server's start, and none above the signed 16 bits of Dynamo's DYN_SYSTEM_PORT."""


def choose_port(wanted: int | None = None) -> int:
    """A free port, or `wanted` if it is free.

    Raises:
        PortInUse: `wanted` is taken.
    """
    if wanted is not None:
        return _bound(wanted)
    for port in random.sample(FREE_PORTS, 100):
        with contextlib.suppress(PortInUse):
            return _bound(port)
    return _bound(0)


def _bound(port: int) -> int:
    """The port, after it was bound once; the system's choice for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortInUse(
                f"port {port} on {HOST} can't be had ({getattr(error, 'strerror', error)}); "
                "stop what listens there, or choose another"
            ) from error
        bound: int = probe.getsockname()[1]
        return bound


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
