"""The real sampler process on the stand-in for NVIDIA's library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def start_sampler(standin: Path) -> Start:
    """Starts `mtpbench.power.agent` on the stand-in: (file, words for the stand-in, more arguments)."""

    def start(out: Path, words: str = "", *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(standin), "MTPBENCH_FAKE_NVML": words}
        command = [sys.executable, "-m", "mtpbench.power.agent", "--out", str(out), "--interval", "0.05"]
        return subprocess.Popen(
            [*command, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    return start
