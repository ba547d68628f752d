"""Pure: the known deaths of servers, recognised in what they print, named with the line that shows it.

Source: captured start-ups and deaths of vLLM 0.32 and llama.cpp's server (tests/fixtures/captures/failures);
the patterns for CUDA, SGLang and TensorRT-LLM are read from their sources, not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mtpbench.engines.registry import abouts

LINE_LIMIT = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a server died: a stable code, what to do about it, and the log line that shows it."""

    code: str
    advice: str
    line: str

    def __str__(self) -> str:
        return f"{self.code}: {self.line} ({self.advice})"


_ADVICE: Mapping[str, str] = {
    "bad_flag": "take the option away, or use an engine version that knows it",
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
    "bad_flag": r"unrecognized arguments?:|[Nn]o such option|unexpected keyword argument"
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
CODES = tuple(_ADVICE)


def explain(log_text: str) -> Cause | None:
    """The known cause in a log, the most telling first; None where nothing is recognised."""
    lines = log_text.splitlines()
    for code, advice in _ADVICE.items():
        if (pattern := _pattern(code)) is None:
            continue
        # The last mention is the message itself; before it stand the traceback's `raise` and repetitions.
        for i in range(len(lines) - 1, -1, -1):
            if pattern.search(lines[i]) and not lines[i].lstrip().startswith("raise "):
                return Cause(code=code, advice=advice or _install_advice(), line=_telling(lines, i))
    return None


def _pattern(code: str) -> re.Pattern[str] | None:
    """What a line of a death with this code looks like; None where no engine prints any."""
    patterns = [_OF_NO_ENGINE.get(code), *(about.deaths.get(code) for about in abouts())]
    if code == "engine_not_installed":
        modules = "|".join(module for about in abouts() for module in about.modules)
        patterns.append(rf"No module named '?(?:{modules})\b")
    joined = "|".join(pattern for pattern in patterns if pattern is not None)
    return re.compile(joined) if joined else None


def _install_advice() -> str:
    first, *others = dict.fromkeys(about.extra for about in abouts() if about.extra is not None)
    return f"get it with `pip install 'mtpbench[{first}]'` (or {', '.join(others)}), or set `engine.command`"


def _telling(lines: list[str], at: int) -> str:
    """The line without its prefix; with what follows where a validation error spreads over several."""
    text = lines[at].strip()
    if "validation error" in text:
        text = " ".join([text, *(line.strip() for line in lines[at + 1 : at + 3])])
    text = re.sub(r"^(?:\(\w+ pid=\d+\) )?(?:ERROR|WARNING|INFO) [\d\- :]+ \[[\w.]+:\d+\] ", "", text)
    return text if len(text) <= LINE_LIMIT else text[: LINE_LIMIT - 1] + "…"
