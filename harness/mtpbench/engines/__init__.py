"""Pure: the engines by name, each a module: a point in, a deployment out; metrics text in, counters out.

Engines only describe processes; executors only run them. What else generic code needs to know of an engine
stands in its module's `ABOUT`.

Known deaths of servers are recognised in what they print, and named with the line that shows it. Source:
captured start-ups and deaths of vLLM 0.32 and llama.cpp's server (tests/fixtures/captures/failures); the
patterns for CUDA, SGLang and TensorRT-LLM are read from their sources, not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mtpbench.engines import dynamo, llamacpp, mocker, sglang, simulated, trtllm, vllm
from mtpbench.engines.about import About, Release
from mtpbench.errors import UnsupportedError
from mtpbench.records import Deployment, EngineLimits, Hardware, Point, SpecCounters, SpecGauge, WorkerRole


class EngineModule(Protocol):
    """An engine module describes one engine; every module of an engine here offers this."""

    ABOUT: About

    RESET_PATH: str | None
    """The path whose POST empties the prefix cache; None where the engine has no such call."""

    def check(self, point: Point, hardware: Hardware) -> None:
        """Raises UnsupportedError where the engine can't do what the point needs."""

    def deploy(self, point: Point, hardware: Hardware) -> Deployment:
        """Returns the point's deployment (the same for every point of one deployment key)."""

    def limits(self, point: Point) -> Mapping[WorkerRole, EngineLimits]:
        """Returns the scheduler limits that the point's flags set, by worker role."""

    def counters(self, metrics_text: str) -> SpecCounters | tuple[SpecGauge, ...] | None:
        """Returns the speculation counters of one process's metrics, else gauges by rank, else None."""


EMBEDDED = "simulated"
"""The engine that comes with the harness: only this one has step costs, a clock and faults."""
ENGINES: Mapping[str, EngineModule] = {
    EMBEDDED: simulated,
    "vllm": vllm,
    "sglang": sglang,
    "trtllm": trtllm,
    "llamacpp": llamacpp,
    "mocker": mocker,
}


def engine_of(point: Point) -> EngineModule:
    """Returns the module of a point's engine.

    Raises:
        UnsupportedError: there is none, as in results of another version.
    """
    module = ENGINES.get(point.engine.name)
    if module is None:
        known = ", ".join(ENGINES)
        raise UnsupportedError(f"{point.id}: no engine is called {point.engine.name!r}; there are {known}")
    return module


def release_for(point: Point) -> Release | None:
    """Returns the release that a point's command lines are written for; None where they depend on none."""
    return dynamo.release_for(point.engine, engine_of(point).ABOUT)


def abouts() -> tuple[About, ...]:
    """Returns what every engine says about itself, in the order of `ENGINES`."""
    return tuple(module.ABOUT for module in ENGINES.values())


def install_hint(argv: Sequence[str]) -> str:
    """Returns how to get the engine that a command line starts."""
    start = " ".join(argv[:3])
    for about in abouts():
        if about.extra is not None and any(program in start for program in about.programs):
            return (
                f"get it with `pip install 'mtpbench[{about.extra}]'`, or set `engine.command` to where it is"
            )
    return "install the engine here, or set `engine.command` to where it is"


# --- why servers die ---

LINE_LIMIT = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """A cause explains a server's death: a stable code, advice for the user, and the telling log line."""

    code: str
    advice: str
    line: str

    def __str__(self) -> str:
        return f"{self.code}: {self.line} ({self.advice})"


ADVICE: Mapping[str, str] = {
    "bad_flag": "take the option away, or name the release that runs in `engine.version` or `engine.image`: "
    "options are written for it; `mtpbench doctor SWEEP --parsers` asks the engine itself",
    "contradicting_options": "name the release that runs in `engine.version` or `engine.image`: options are "
    "written for it",
    "other_release": "Dynamo's workers are made for one release of the engine, which `mtpbench plan` names",
    "mega_moe_too_small": "raise SGLANG_OPT_DEEPGEMM_MEGA_MOE_NUM_MAX_TOKENS_PER_RANK, or lower "
    "--cuda-graph-max-bs-decode (--cuda-graph-max-bs before 0.5.14) or --chunked-prefill-size",
    "model_without_mtp": "this checkpoint has no MTP layer, or the engine does not know it; use `off`, or "
    "another checkpoint",
    "bad_speculation": "the engine refuses these speculation settings",
    "engine_not_installed": "",  # `_install_advice` lists what there is
    "out_of_memory": "lower the memory fraction, the batch or the context length",
    "port_in_use": "stop what listens on that port",
    "model_missing": "the model's path or hub id can't be had from here",
    "engine_core_dead": "the engine's core process died; the lines before this one say why",
}
"""What to do about a death, by code, the most telling first."""
_OF_NO_ENGINE: Mapping[str, str] = {
    "bad_flag": r"unrecognized arguments?:|[Nn]o such option|ambiguous option:|unexpected keyword argument"
    r"|Unexpected keyword argument",
    "model_without_mtp": r"does not (?:support|have) (?:an? )?(?:MTP|nextn)"
    r"|no (?:MTP|nextn) (?:layer|head|tensors)",
    "out_of_memory": r"CUDA out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY"
    r"|cudaErrorMemoryAllocation|oom-kill",
    "port_in_use": r"[Aa]ddress already in use|EADDRINUSE",
    "model_missing": r"LocalEntryNotFoundError|RepositoryNotFoundError|is not a local folder"
    r"|is not a valid model identifier",
}
"""Patterns of libraries that several engines share; each engine's own stand in its module."""
CODES = tuple(ADVICE)


def explain(log_text: str) -> Cause | None:
    """Returns the known cause in a log, the most telling first; None where nothing is recognised."""
    lines = log_text.splitlines()
    for code, advice in ADVICE.items():
        if (pattern := _pattern(code)) is None:
            continue
        # The last mention is the message itself; before it stand the traceback's `raise` and repetitions.
        for i in range(len(lines) - 1, -1, -1):
            if pattern.search(lines[i]) and not lines[i].lstrip().startswith("raise "):
                return Cause(code=code, advice=advice or _install_advice(), line=_telling(lines, i))
    return None


def _pattern(code: str) -> re.Pattern[str] | None:
    """Returns the pattern of a log line of this code; None where no engine prints any."""
    patterns = [_OF_NO_ENGINE.get(code), dynamo.DEATHS.get(code)]
    patterns += [about.deaths.get(code) for about in abouts()]
    if code == "engine_not_installed":
        modules = "|".join(module for about in abouts() for module in about.modules)
        patterns.append(rf"No module named '?(?:{modules})\b")
    joined = "|".join(pattern for pattern in patterns if pattern is not None)
    return re.compile(joined) if joined else None


def _install_advice() -> str:
    first, *others = dict.fromkeys(about.extra for about in abouts() if about.extra is not None)
    return f"get it with `pip install 'mtpbench[{first}]'` (or {', '.join(others)}), or set `engine.command`"


def _telling(lines: list[str], at: int) -> str:
    """Returns the line without its prefix; of a validation error, with the two lines that follow it."""
    text = lines[at].strip()
    if "validation error" in text:
        text = " ".join([text, *(line.strip() for line in lines[at + 1 : at + 3])])
    text = re.sub(r"^(?:\(\w+ pid=\d+\) )?(?:ERROR|WARNING|INFO) [\d\- :]+ \[[\w.]+:\d+\] ", "", text)
    return text if len(text) <= LINE_LIMIT else text[: LINE_LIMIT - 1] + "…"
