"""Ports on the nodes of a Slurm job: no two alike, none that another job of the same node would choose."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping

from mtpbench.errors import PortInUse
from mtpbench.records import Deployment

FIRST_PORT, LAST_PORT = 20_000, 32_767
"""Where ports are looked for: below those that Linux gives to clients, and within signed 16 bits (Dynamo)."""
PORT_BLOCK = 128
"""Ports of one job: jobs of neighbouring numbers that share a node don't meet."""
PROBE_S = 0.3


def port_block(raw_id: str) -> range:
    """The ports of a job, by its number."""
    blocks = (LAST_PORT + 1 - FIRST_PORT) // PORT_BLOCK
    first = FIRST_PORT + int(raw_id) % blocks * PORT_BLOCK
    return range(first, first + PORT_BLOCK)


def choose_ports(
    deployment: Deployment, hosts: Mapping[str, str], block: range, front_port: int | None = None
) -> dict[tuple[str, str], int]:
    """A port for each that a process listens on: no two alike in a job, none that is seen to be taken.

    Nodes are probed from here, each by its address, so that this holds where "nodes" are one machine too.

    Raises:
        PortInUse: the front's port was asked for by number and is taken, or too many are.
    """
    start = random.randrange(len(block))
    numbers = [
        *block[start:],
        *block[:start],
        *range(block.stop, LAST_PORT + 1),
        *range(FIRST_PORT, block[0]),
    ]
    free = iter(number for number in numbers if number != front_port)
    silent: set[str] = set()
    ports: dict[tuple[str, str], int] = {}
    for process in deployment.processes:
        host = hosts[process.name]
        for name in process.ports:
            if front_port is not None and (process.name, name) == (deployment.front, deployment.front_port):
                if is_taken(host, front_port, silent):
                    raise PortInUse(
                        f"port {front_port} on {host} is taken; stop what listens, or choose another"
                    )
                ports[process.name, name] = front_port
                continue
            port = next((number for number in free if not is_taken(host, number, silent)), None)
            if port is None:
                raise PortInUse(f"no free port on {host} between {FIRST_PORT} and {LAST_PORT}")
            ports[process.name, name] = port
    return ports


def is_taken(host: str, port: int, silent: set[str]) -> bool:
    """Whether something listens on a port: by binding it where the address is ours, else by connecting.

    `silent` collects the hosts that don't answer in time, which are not asked again.
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
        return _is_bound_here(host, port)
    except OSError:
        silent.add(host)
    return False


def _is_bound_here(host: str, port: int) -> bool:
    """Whether the address is this machine's and the port bound by something that does not listen yet."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
