"""The engines by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtpbench.engines import About, EngineModule, llamacpp, mocker, sglang, simulated, trtllm, vllm
from mtpbench.records import Point

EMBEDDED = "simulated"
"""The engine that comes with the harness: it alone has step costs, a clock and faults of its own."""
ENGINES: Mapping[str, EngineModule] = {
    EMBEDDED: simulated,
    "vllm": vllm,
    "sglang": sglang,
    "trtllm": trtllm,
    "llamacpp": llamacpp,
    "mocker": mocker,
}


def engine_of(point: Point) -> EngineModule:
    """The module of a point's engine."""
    return ENGINES[point.engine.name]


def abouts() -> tuple[About, ...]:
    """What every engine says about itself, in the order of `ENGINES`."""
    return tuple(module.ABOUT for module in ENGINES.values())


def install_hint(argv: Sequence[str]) -> str:
    """How to get the engine that a command line starts."""
    start = " ".join(argv[:3])
    for about in abouts():
        if about.extra is not None and any(program in start for program in about.programs):
            return (
                f"get it with `pip install 'mtpbench[{about.extra}]'`, or set `engine.command` to where it is"
            )
    return "install the engine here, or set `engine.command` to where it is"
