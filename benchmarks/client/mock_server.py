"""The mock server of mock.c: compiled once, started for one run, asked what it counted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "mock.c"
PROGRAM = HERE / ".build" / "mock"
STOP_S = 5
ANSWER_S = 60


class MockServer:
    """A running mock; `url` is where clients find it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def stats(self) -> dict[str, Any]:
        """What it counted so far: `GET /stats`."""
        return json.loads(self._get("/stats"))

    def received_ns(self) -> NDArray[np.int64]:
        """When it received each finished request, in order of arrival."""
        lines = self._get("/requests").decode().splitlines()[1:]
        return np.sort(np.array([int(line.split(",")[1]) for line in lines], dtype=np.int64))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=ANSWER_S) as answer:
            return answer.read()


def build_mock() -> Path:
    """The program, compiled now unless it is newer than its source.

    Raises:
        SystemExit: there is no C compiler, or the source does not compile.
    """
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return PROGRAM
    PROGRAM.parent.mkdir(exist_ok=True)
    words = [os.environ.get("CC", "cc"), "-O2", "-std=gnu17", "-Wall", "-Wextra", "-o", PROGRAM, SOURCE]
    try:
        subprocess.run(words, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"mock.c can't be compiled: {error}") from error
    return PROGRAM


@contextlib.contextmanager
def serve_mock(
    *, step_ms: float, ttft_ms: float, on_core: contextlib.AbstractContextManager[None]
) -> Iterator[MockServer]:
    """A mock on a free port of the loopback interface, started within `on_core`, while the context lasts."""
    pace = ("--step-ms", str(step_ms), "--ttft-ms", str(ttft_ms))
    words = [build_mock(), "--port", "0", *pace]
    with on_core:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("listening on "):
            raise RuntimeError(f"the mock server did not start: exit code {process.wait(STOP_S)}")
        yield MockServer(int(said.split()[-1]))
    finally:
        process.terminate()
        process.wait(STOP_S)
