"""The engines by name."""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.engines import EngineModule, llamacpp, mocker, sglang, simulated, trtllm, vllm
from mtpbench.records import Point

ENGINES: Mapping[str, EngineModule] = {
    "simulated": simulated,
    "vllm": vllm,
    "sglang": sglang,
    "trtllm": trtllm,
    "llamacpp": llamacpp,
    "mocker": mocker,
}


def engine_of(point: Point) -> EngineModule:
    """The module of a point's engine."""
    return ENGINES[point.engine.name]
