"""What tests of real client processes share: driving a spec, finding its processes, a server that stalls."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from answers import CHUNKED, answering, chunk, token

from mtpbench.load.client import drive


def processes():
    """The load client's processes below this one: number -> pid."""
    found = {}
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in read(children).split():
            words = read(Path(f"/proc/{pid}/cmdline")).split("\0")
            if "mtpbench.load.worker" in words:
                found[int(words[-3])] = int(pid)
    return found


def read(path):
    """The text of a file that may be gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def over(spec, count):
    """The same spec over so many processes."""
    return dataclasses.replace(spec, load=dataclasses.replace(spec.load, workers=count))


def run(spec, workers=1, **options):
    return asyncio.run(drive(over(spec, workers), **options))


def stalling(begun=None, good=0):
    """`good` requests are answered; each later one gets one token, and then nothing."""

    def first(peer, request):
        if len(peer.server.requests) <= good:
            return False
        peer.send(CHUNKED, chunk(token(1)))
        if begun is not None:
            begun.release()
        peer.await_close()
        return True

    return answering(first=first)
