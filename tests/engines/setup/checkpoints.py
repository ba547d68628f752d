"""The crafted checkpoints: three folders for vLLM and a GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path

from engines.setup import deepseek, gguf, mimo
from engines.setup.cache import cached
from engines.setup.chain import LONG_CHAIN

MIMO, MIMO_DEEP, DEEPSEEK, GLM = "mimo", "mimo-deep", "deepseek-v3", "glm4-moe.gguf"
DEEP_LAYERS = 24
"""Enough for a draft to be cheap beside a step, as in a real model, where MTP is one layer of dozens."""


def craft_checkpoints() -> Path:
    """The folder that holds all of them, made in a second unless it is there; no network and no torch."""
    here = Path(__file__).resolve().parent
    sources = ("chain", "vocabulary", "weights", "mimo", "deepseek", "gguf", "checkpoints")
    return cached("crafted", [(here / f"{name}.py").read_bytes() for name in sources], _craft)


def _craft(folder: Path) -> None:
    mimo.craft(folder / MIMO)
    mimo.craft(folder / MIMO_DEEP, layers=DEEP_LAYERS)
    deepseek.craft(folder / DEEPSEEK, shape=deepseek.Shape(layers=3, experts=4))
    gguf.craft(folder / GLM, LONG_CHAIN)
