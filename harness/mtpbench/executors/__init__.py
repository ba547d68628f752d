"""Executors run the processes that engines describe: `local` on this machine, `slurm.executor` in a job.

Here is what both need: free ports, here and on the nodes of a Slurm job, the process that a port belongs to
(Linux /proc), and the files and logs of servers.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mtpbench.errors import PortInUse, StoreError
from mtpbench.records import Deployment, Process
from mtpbench.store.files import new_file, own_mark, replace_file

HOST = "127.0.0.1"
FREE_PORTS = range(20_000, 32_768)
"""Where free ports are looked for: below those that Linux gives to clients, which could take one between the
choice and the server's start, and within the signed 16 bits of Dynamo's DYN_SYSTEM_PORT."""
PORT_BLOCK = 128
"""Ports of one job: jobs of neighbouring numbers that share a node don't meet."""
PROBE_S = 0.3
_LISTEN = "0A"
HIDE_AT_ONCE_BYTES = 1 << 22
LAST_BYTES = 1 << 18
"""More of a log's end is not read to show its last lines."""


def port_block(raw_id: str) -> range:
    """Returns the ports of a job, by its number."""
    blocks = len(FREE_PORTS) // PORT_BLOCK
    first = FREE_PORTS.start + int(raw_id) % blocks * PORT_BLOCK
    return range(first, first + PORT_BLOCK)


def refuse_taken(number: int) -> None:
    """Checks that a port of this machine is free.

    Raises:
        PortInUse: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except (OSError, OverflowError) as error:
            raise PortInUse(
                f"port {number} on {HOST} can't be had ({getattr(error, 'strerror', error)}); "
                "stop what listens there, or choose another"
            ) from error


def choose_ports(
    deployment: Deployment,
    hosts: Mapping[str, str],
    front_port: int | None = None,
    block: range = FREE_PORTS,
) -> dict[tuple[str, str], int]:
    """Returns a port for each that a process listens on: all different, and none that is taken.

    The numbers that a process derives from a port (`port_spans`) are kept free of other ports too.

    Nodes are probed from here, each by its address; this works too where several "nodes" are one machine.

    Args:
        deployment: the processes.
        hosts: the address of each process.
        front_port: the number of the front's port, or None for a free one.
        block: the ports that are tried first.

    Raises:
        PortInUse: the front's port was asked for by number and is taken, or too many are.
    """
    free = (number for number in _search(block) if number != front_port)
    silent: set[str] = set()
    ports: dict[tuple[str, str], int] = {}
    for process in deployment.processes:
        host = hosts[process.name]
        for name in process.ports:
            span = process.port_spans.get(name, 1)
            is_front = (process.name, name) == (deployment.front, deployment.front_port)
            if front_port is None or not is_front:
                ports[process.name, name] = _next_free(free, host, silent, span)
                continue
            if is_taken(host, front_port, silent):
                raise PortInUse(f"port {front_port} on {host} is taken; stop what listens, or choose another")
            ports[process.name, name] = front_port
    return ports


def _search(block: range) -> Iterator[int]:
    """Yields every port in which a free one may be found: first those of a block, from a random one on."""
    start = random.randrange(len(block))
    yield from (*block[start:], *block[:start])
    yield from (*range(block.stop, FREE_PORTS.stop), *range(FREE_PORTS.start, block.start))


def _next_free(numbers: Iterator[int], host: str, silent: set[str], span: int = 1) -> int:
    """Returns the next port from which on nothing listens on `span` numbers in a row."""
    row = 0
    last: int | None = None
    for number in numbers:
        follows = last is not None and number == last + 1
        row = 0 if is_taken(host, number, silent) else 1 + row * follows
        last = number
        if row == span:
            return number - span + 1
    found = "no free port" if span == 1 else f"there are not {span} free ports in a row"
    raise PortInUse(f"{found} on {host} between {FREE_PORTS[0]} and {FREE_PORTS[-1]}")


def is_taken(host: str, port: int, silent: set[str]) -> bool:
    """Returns whether something listens on a port.

    A port of this machine is bound to find out, one of another machine connected to. `silent` collects the
    hosts that don't answer in time, which are not asked again.
    """
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return False
    if host in silent:
        return False
    try:
        with socket.create_connection((host, port), timeout=PROBE_S):
            return True
    except TimeoutError:
        silent.add(host)
    except ConnectionRefusedError:
        return _is_here(host)
    except OSError:
        silent.add(host)
    return False


def _is_here(host: str) -> bool:
    """Returns whether the address is this machine's; a port that refuses may be bound there all the same."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def listens_in_group(port: int, group: int) -> bool | None:
    """Returns whether a process of the group listens on the port; None where /proc does not tell.

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
        for line in Path(table).read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(fields[9])
    return inodes


def _sockets(pid: int) -> set[str]:
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(handle)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def lay_down(process: Process, directory: Path) -> Path:
    """Writes a resolved process's files, makes the directory of its log, and returns the log's path.

    Raises:
        StoreError: a file can't be written.
    """
    for file in process.files:
        # It may hold the values of the environment.
        replace_file(Path(file.path), file.text, sync=False, parents=True, private=True)
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{process.name}.log"


def new_log(path: Path) -> BinaryIO:
    """Opens a process's log; that of an earlier start, or a link in its place, goes.

    Raises:
        StoreError: it can't be made, or a folder is in its place.
    """
    try:
        path.unlink(missing_ok=True)
        return new_file(path)
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror})", path=path) from error


def hide_in_files(directory: Path, hide: Callable[[bytes], bytes]) -> tuple[str, ...]:
    """Takes secrets out of the files of servers that have ended; the times of the files stay.

    Returns:
        A sentence on each file that can't be read or replaced, and stays as it is.
    """
    untouched = []
    for path in sorted(directory.rglob("*")):
        try:
            if path.is_file() and not path.is_symlink():
                _hide_in_file(path, hide)
        except OSError as error:
            untouched.append(f"{path}: secrets may stand in it, and can't be taken out ({error.strerror})")
    return tuple(untouched)


def _hide_in_file(path: Path, hide: Callable[[bytes], bytes]) -> None:
    before, clean = path.stat(), path.with_name(f".{path.name}.{own_mark()}")
    is_moved = False
    try:
        with path.open("rb") as old, new_file(clean, private=True) as new:
            # Cut at the end of a line, where there is one: a log may be one endless line.
            while text := old.read(HIDE_AT_ONCE_BYTES) + old.readline(HIDE_AT_ONCE_BYTES):
                hidden = hide(text)
                is_moved |= hidden != text
                new.write(hidden)
        if is_moved:
            os.chmod(clean, before.st_mode & 0o7777)
            os.utime(clean, ns=(before.st_atime_ns, before.st_mtime_ns))
            clean.replace(path)
    finally:
        clean.unlink(missing_ok=True)


def last_lines(log: Path, lines: int) -> str:
    """Returns the last lines of a log, of its last `LAST_BYTES` at most; empty where there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        return "\n".join(file.read(LAST_BYTES).decode("utf-8", "replace").splitlines()[-lines:])


def let_go(popen: subprocess.Popen[bytes]) -> None:
    """Closes what a process that has ended was held by."""
    if popen.stdin is not None:
        popen.stdin.close()
