"""The roll call: runs once on each node of an allocation and prints one line of JSON with what the node has.

    python rollcall.py TOKEN_FILE TOKEN [NETWORK_INTERFACE]

The Slurm executor passes this file's text to `python -c`, before mtpbench is known to be there. Standard
library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import time

READS = 10
GET_ADDRESS = 0x8915
"""SIOCGIFADDR of Linux."""


def sees(path: str, token: str) -> bool:
    """Returns whether a file holds a token; waits some seconds, since shared filesystems can be late."""
    for read in range(READS):
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() == token:
                    return True
        except OSError:
            pass
        if read < READS - 1:
            time.sleep(0.5)
    return False


def address_of(interface: str) -> tuple[str | None, str | None]:
    """Returns the IPv4 address of a network interface, or None and why there is none."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), GET_ADDRESS, request)[20:24]), None
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            return None, f"{error.strerror}; it has {names}"


def main(path: str, token: str, interface: str = "") -> None:
    """Prints what this node is, sees, and has."""
    address, why = address_of(interface) if interface else (None, None)
    answer = {
        "node": os.environ.get("SLURMD_NODENAME"),
        "host": socket.gethostname(),
        "sees": sees(path, token),
        "address": address,
        "no_address": why,
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "python": sys.version.split()[0],
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
