"""Pure: the known deaths of servers, recognised in what they print, named with the line that shows it.

Source: captured start-ups and deaths of vLLM 0.32 and llama.cpp's server (tests/fixtures/captures/failures);
the patterns for CUDA, SGLang and TensorRT-LLM are read from their sources, not seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE_LIMIT = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a server died: a stable code, what to do about it, and the log line that shows it."""

    code: str
    advice: str
    line: str

    def __str__(self) -> str:
        return f"{self.code}: {self.line} ({self.advice})"


_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        "bad_flag",
        "take the option away, or use an engine version that knows it",
        r"unrecognized arguments?:|invalid argument:|[Nn]o such option|unexpected keyword argument"
        r"|Unexpected keyword argument",
    ),
    (
        "model_without_mtp",
        "this checkpoint has no MTP layer, or the engine does not know it; use `off`, or another checkpoint",
        r"Unsupported speculative method: 'mtp'|does not (?:support|have) (?:an? )?(?:MTP|nextn)"
        r"|no (?:MTP|nextn) (?:layer|head|tensors)",
    ),
    (
        "bad_speculation",
        "the engine refuses these speculation settings",
        r"synthetic_acceptance_\w+ must be|synthetic acceptance length must be"
        r"|validation error for SpeculativeConfig",
    ),
    (
        "engine_not_installed",
        "get it with `pip install 'mtpbench[vllm]'` (or sglang, trtllm, dynamo), or set `engine.command`",
        r"No module named '?(?:vllm|sglang|sglang_router|tensorrt_llm|dynamo)\b",
    ),
    (
        "out_of_memory",
        "lower the memory fraction, the batch or the context length",
        r"CUDA out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
        r"|is less than (?:requested|desired)|No available memory for the cache blocks|Not enough memory"
        r"|failed to allocate buffer|oom-kill",
    ),
    (
        "port_in_use",
        "stop what listens on that port",
        r"[Aa]ddress already in use|EADDRINUSE|couldn't bind",
    ),
    (
        "model_missing",
        "the model's path or hub id can't be had from here",
        r"LocalEntryNotFoundError|RepositoryNotFoundError|failed to open GGUF file|is not a local folder"
        r"|is not a valid model identifier",
    ),
    (
        "engine_core_dead",
        "the engine's core process died; the lines before this one say why",
        r"EngineDeadError|EngineCore encountered an issue|Engine core initialization failed"
        r"|Scheduler hit an exception|Executor worker died",
    ),
)
_PATTERNS = tuple((code, advice, re.compile(pattern)) for code, advice, pattern in _KNOWN)
CODES = tuple(code for code, _, _ in _KNOWN)


def explain(log_text: str) -> Cause | None:
    """The known cause in a log, the most telling first; None where nothing is recognised."""
    lines = log_text.splitlines()
    for code, advice, pattern in _PATTERNS:
        # The last mention is the message itself; before it stand the traceback's `raise` and repetitions.
        for i in range(len(lines) - 1, -1, -1):
            if pattern.search(lines[i]) and not lines[i].lstrip().startswith("raise "):
                return Cause(code=code, advice=advice, line=_telling(lines, i))
    return None


def _telling(lines: list[str], at: int) -> str:
    """The line without its prefix; with what follows where a validation error spreads over several."""
    text = lines[at].strip()
    if "validation error" in text:
        text = " ".join([text, *(line.strip() for line in lines[at + 1 : at + 3])])
    text = re.sub(r"^(?:\(\w+ pid=\d+\) )?(?:ERROR|WARNING|INFO) [\d\- :]+ \[[\w.]+:\d+\] ", "", text)
    return text if len(text) <= LINE_LIMIT else text[: LINE_LIMIT - 1] + "…"
