"""The stand-in for NVIDIA's library, compiled once, and the real sampler process on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `libnvidia-ml.so.1`, made of fakenvml.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "a C compiler is needed (CONTRIBUTING.md)"
    folder = tmp_path_factory.mktemp("nvml")
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1", HERE / "fakenvml.c"], check=True)
    return folder


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
