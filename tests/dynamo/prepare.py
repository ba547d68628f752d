"""Sets up Dynamo for `make test-dynamo`: its mocker, its real workers; then runs a command that finds them.

    python tests/dynamo/prepare.py [mocker] [vllm] [sglang] [-- COMMAND …]

Without a name all three are set up. Everything lands in `$MTPBENCH_CACHE` (by default `mtpbench` in the
user's cache folder) and is made once. COMMAND finds it by these variables; without one they are printed.

    MTPBENCH_DYNAMO_PYTHON         interpreter of an environment with Dynamo's frontend and mocker
    MTPBENCH_DYNAMO_MODEL          folder of a tokenizer for the mocker to serve
    MTPBENCH_DYNAMO_VLLM_PYTHON    the same with vLLM 0.31 on the CPU, for `dynamo.vllm`
    MTPBENCH_DYNAMO_SGLANG_PYTHON  the same with SGLang on the CPU, for `dynamo.sglang`
    MTPBENCH_CRAFTED               folder of the crafted checkpoints, for the last two

COMMAND also gets what keeps all of it on the loopback interface (`ON_LOOPBACK`).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mocker_tokenizer import write_model

from engines.setup import sglang_cpu, vocabulary
from engines.setup.cache import BuildError, cache_root, cached, call, make_environment
from engines.setup.checkpoints import craft_checkpoints
from engines.setup.vllm_cpu import install_vllm

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE.parents[1] / "requirements"
LOCK = REQUIREMENTS / "dynamo.lock"
VLLM_LOCK = REQUIREMENTS / "dynamo-vllm.lock"
PYTHON = f"{platform.python_version()} {platform.system()} {platform.machine()}"

ON_LOOPBACK = {
    "HF_HUB_OFFLINE": "1",
    # Of the frontend; of a worker's /health and /metrics; of the requests and of the answers between them,
    # where releases before 1.6 want the name of an interface, not an address.
    "DYN_HTTP_HOST": "127.0.0.1",
    "DYN_SYSTEM_HOST": "127.0.0.1",
    "DYN_TCP_RPC_HOST": "127.0.0.1",
    "DYN_TCP_RESPONSE_STREAM_HOST": "lo",
    # A publisher of events listens on every interface, unless it sends them to a broker. Nobody is there:
    # events are for routers that know what workers have cached, and this frontend takes workers in turn.
    "DYN_ZMQ_BROKER_URL": "xsub=tcp://127.0.0.1:9 , xpub=tcp://127.0.0.1:9",
    # Of the ranks of an engine, to each other.
    "VLLM_HOST_IP": "127.0.0.1",
    "SGLANG_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""Nothing is looked up on the hub, and nothing listens on another interface than loopback."""


def install_mocker() -> Path:
    """The interpreter of an environment with ai-dynamo alone, made now (1 minute) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    return cached("dynamo", [LOCK.read_bytes(), PYTHON], _install_mocker) / "bin" / "python"


def install_vllm_workers() -> Path:
    """The interpreter of an environment for `dynamo.vllm`: vLLM 0.31 and ai-dynamo above a newer vLLM's.

    Made now (0.9 GB, half a minute, beside what `make test-engines` needs) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    engine, plugin = install_vllm(), sglang_cpu.PLUGIN / "mtpbench_sglang_cpu.py"

    def install(folder: Path) -> None:
        python = _install_workers(folder, engine, VLLM_LOCK)
        # The same as for SGLang: PyPI's torchvision is built for GPUs.
        packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
        shutil.copy(plugin, packages)
        line = f"import {plugin.stem}; {plugin.stem}.mend_torchvision()\n"
        (packages / "torchvision.pth").write_text(line, "utf-8")
        call((python, "-c", "import dynamo.frontend, dynamo.vllm.main"), folder / "install.log")

    made_from = [*_ingredients(engine), VLLM_LOCK.read_bytes(), plugin.read_bytes()]
    return cached("dynamo-vllm", made_from, install) / "bin" / "python"


def install_sglang_workers() -> Path:
    """The interpreter of an environment for `dynamo.sglang`: ai-dynamo above SGLang's own environment.

    Made now (0.3 GB, half a minute, beside what `make test-sglang` needs) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    engine = sglang_cpu.install_sglang()

    def install(folder: Path) -> None:
        python, log = _install_workers(folder, engine), folder / "install.log"
        call((python, "-c", "import dynamo.frontend, dynamo.sglang.main"), log)

    return cached("dynamo-sglang", _ingredients(engine), install) / "bin" / "python"


def craft_model() -> Path:
    """The folder of the mocker's tokenizer, written in a second unless it is there."""
    sources = (HERE / "mocker_tokenizer.py", Path(vocabulary.__file__))
    return cached("dynamo-model", [source.read_bytes() for source in sources], write_model)


def _install_mocker(folder: Path) -> None:
    log = folder / "install.log"
    python = make_environment(folder, log)
    call((python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", LOCK), log)
    call((python, "-c", "import dynamo.frontend, dynamo.mocker"), log)


def _ingredients(engine: Path) -> list[str | bytes]:
    return [LOCK.read_bytes(), str(engine), PYTHON]


def _install_workers(folder: Path, engine: Path, *more: Path) -> Path:
    """Fills a folder with an environment above an engine's: what that one lacks, and `more` locks."""
    log, wanted = folder / "install.log", folder / "dynamo.lock"
    python = sglang_cpu.lay_over(folder, engine.parents[1], log)
    wanted.write_text("".join(_missing(LOCK.read_text("utf-8"), engine)), "utf-8")
    pip = (python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes")
    locks = [word for lock in (wanted, *more) for word in ("-r", lock)]
    # An older vLLM goes over a newer one, which pip would else take away from the environment below.
    call((*pip, "--ignore-installed", *locks), log)
    return python


def _missing(lock: str, engine: Path) -> list[str]:
    """The entries of a lock file whose packages an environment lacks, in whatever release."""
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    there = subprocess.run((engine, "-c", code), capture_output=True, text=True, check=True).stdout.split()
    names = {_normal(name) for name in there}
    entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
    return [entry for entry in entries if entry and _normal(entry.partition("==")[0]) not in names]


def _normal(name: str) -> str:
    """A distribution's name as the package index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


Setup = Callable[[], dict[str, str]]
PARTS: Mapping[str, tuple[str, Setup]] = {
    "mocker": (
        "Dynamo's frontend and mocker (1 minute)",
        lambda: {
            "MTPBENCH_DYNAMO_PYTHON": str(install_mocker()),
            "MTPBENCH_DYNAMO_MODEL": str(craft_model()),
        },
    ),
    "vllm": (
        "Dynamo with vLLM on the CPU (2.7 GB, 1 to 3 minutes)",
        lambda: {"MTPBENCH_DYNAMO_VLLM_PYTHON": str(install_vllm_workers())},
    ),
    "sglang": (
        "Dynamo with SGLang on the CPU (3.9 GB, 2 to 8 minutes)",
        lambda: {"MTPBENCH_DYNAMO_SGLANG_PYTHON": str(install_sglang_workers())},
    ),
}


def prepare(names: Sequence[str]) -> dict[str, str]:
    """The variables that lead to the parts, all of them in place.

    Raises:
        BuildError: one could not be set up.
    """
    found = {"MTPBENCH_CRAFTED": str(craft_checkpoints()), **ON_LOOPBACK}
    for name in names:
        what, set_up = PARTS[name]
        print(f"setting up {what} in {cache_root()}, unless it is there", file=sys.stderr, flush=True)
        began = time.monotonic()
        found.update(set_up())
        print(f"  ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main(words: Sequence[str]) -> None:
    """Prepare, then become the command."""
    split = words.index("--") if "--" in words else len(words)
    names, command = words[:split], list(words[split + 1 :])
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    try:
        found = prepare(names or list(PARTS))
    except BuildError as error:
        sys.exit(f"error: {error}")
    if command:
        os.execvpe(command[0], command, {**os.environ, **found})
    print("\n".join(f"{name}={value}" for name, value in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
