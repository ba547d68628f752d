"""A stand-in for NVIDIA's library, so that the real nvidia-ml-py runs on machines without a GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "fakenvml.c"


def build(folder: Path) -> Path:
    """Compile `libnvidia-ml.so.1` into a folder, which LD_LIBRARY_PATH then has to name."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "a C compiler is needed (CONTRIBUTING.md)"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder
