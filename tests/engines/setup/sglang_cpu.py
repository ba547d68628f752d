"""SGLang on the CPU: the pinned set of packages and, above it, the plugin with its kernels in plain torch.

Packages take minutes and gigabytes, the plugin a second: each has a folder of its own, so that a change of
the plugin installs nothing else anew. Other tiers' environments can lie above the same packages (`lay_over`).
"""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from engines.setup.cache import BuildError, cached, call, make_environment

LOCK = Path(__file__).resolve().parents[3] / "requirements" / "sglang-cpu.lock"
PLUGIN = Path(__file__).resolve().parent / "sglang_plugin"
PLUGIN_FILES = ("pyproject.toml", "mtpbench_sglang_cpu.py", "sgl_kernel/__init__.py")
PYTHON = f"{platform.python_version()} {platform.system()} {platform.machine()}"


def install_sglang() -> Path:
    """The interpreter of an environment in which SGLang serves, drafts and verifies on any x86 CPU.

    Made now (3.6 GB, 2 to 7 minutes) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    packages = install_packages()
    ingredients = [(PLUGIN / name).read_bytes() for name in PLUGIN_FILES]
    ingredients += [Path(__file__).read_bytes(), str(packages).encode()]
    return cached("sglang-cpu", ingredients, lambda folder: _install(folder, packages)) / "bin" / "python"


def install_packages() -> Path:
    """The folder of an environment with SGLang, its routers and what both need, without the plugin.

    PyPI's SGLang starts its parsers there, but no server: its kernels are built for NVIDIA's GPUs.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    return cached("sglang-packages", [LOCK.read_bytes(), PYTHON], _install_packages)


def lay_over(folder: Path, below: Path, log: Path) -> Path:
    """A new environment that sees another one's packages below its own, pip too; returns its interpreter.

    Args:
        folder: where it is made.
        below: the folder of the other environment.
        log: where its installation is noted.

    Raises:
        BuildError: it can't be made.
    """
    call((sys.executable, "-m", "venv", "--without-pip", folder), log)
    # Not a plain line with the path: then .pth files in that folder would not be obeyed.
    line = f"import site; site.addsitedir({str(_site_packages(below))!r})\n"
    (_site_packages(folder) / "below.pth").write_text(line, "utf-8")
    return folder / "bin" / "python"


def _install_packages(folder: Path) -> None:
    log = folder / "install.log"
    python = make_environment(folder, log)
    pip = (python, "-m", "pip", "install", "-q", "--no-deps")
    torch = _pin("torch")
    try:
        # Satisfies the lock's pin, and spares the 3 GB of a build for GPUs. Few indexes have it.
        call((*pip, f"{torch}+cpu"), log)
    except BuildError:
        call((*pip, torch), log)
    call((*pip, "--require-hashes", "-r", LOCK), log)


def _install(folder: Path, packages: Path) -> None:
    log = folder / "install.log"
    python = lay_over(folder, packages, log)
    # Building it leaves files behind: not in the tree.
    plugin = folder / "plugin"
    for name in PLUGIN_FILES:
        (plugin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PLUGIN / name, plugin / name)
    call((python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", plugin), log)
    line = "import mtpbench_sglang_cpu; mtpbench_sglang_cpu.mend_torchvision()\n"
    (_site_packages(folder) / "mtpbench_sglang_cpu.pth").write_text(line, "utf-8")
    call((python, "-c", "import torchvision, sgl_kernel, sglang.launch_server, sglang_router"), log)


def _site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(environment)}))


def _pin(name: str) -> str:
    lines = [line.split()[0] for line in LOCK.read_text("utf-8").splitlines() if line.startswith(f"{name}==")]
    (pin,) = lines
    return pin
