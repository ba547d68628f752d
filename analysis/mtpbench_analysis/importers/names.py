"""Names that other tools give to GPUs, engines, precisions, layouts and methods, in the words of points."""

from __future__ import annotations

import re

from mtpbench.records import METHOD_NAMES, OFF
from mtpbench_analysis.importers.fields import Fields

METHODS = (*METHOD_NAMES,)
"""How drafts are made, `off` among it, as points name it."""
_SGLANG_METHODS = {"DSPARK": "dspark", "EAGLE3": "eagle3", "STANDALONE": "draft_model", "NGRAM": "ngram"}

_RUNNER = re.compile(r"(gb|b|h|a|mi)\d+[a-z]*(?=[-_]|$)", re.IGNORECASE)
"""The GPU at the head of a runner's name: `gb200` of `gb200-nv_1`."""

_ENGINES = {"dynamo-trtllm": "dynamo-trt", "sglang-disagg": "mori-sglang"}
_PRECISIONS = {"nvfp4": "fp4", "mxfp4": "fp4"}


def gpu_of(runner: str | None) -> str | None:
    """Returns the GPU that a runner is named after, else its whole name."""
    match = _RUNNER.match(runner) if runner else None
    return match[0].lower() if match else runner


def engine_of(framework: str | None) -> str | None:
    """Returns the engine by its newest name in the public rows."""
    return None if framework is None else _ENGINES.get(framework.lower(), framework.lower())


def precision_of(precision: str | None) -> str | None:
    """Returns the precision as tables group it: every 4-bit float is `fp4`."""
    return None if precision is None else _PRECISIONS.get(precision.lower(), precision.lower())


def image_of(name: str | None) -> str | None:
    """Returns the image; file names hold `#` for `/`."""
    return None if name is None else name.replace("#", "/")


def name_worker(
    gpus: int, *, experts: bool = False, attention_dp: bool = False, pp: int = 1, pcp: int = 1, dcp: int = 1
) -> str:
    """Returns the short name of a worker: `TP8`, `DEP16`, `TP4PP2` (2 pipeline stages of 4 GPUs each).

    Args:
        gpus: all of the worker.
        experts: whether experts are spread over them.
        attention_dp: whether attention is data-parallel.
        pp: pipeline stages.
        pcp: ranks of prefill context parallelism.
        dcp: ranks of decode context parallelism, which share the GPUs of TP.
    """
    width = gpus // (pp * pcp) if gpus % (pp * pcp) == 0 else gpus
    kind = ("DEP" if experts else "DP") if attention_dp else ("TEP" if experts else "TP")
    more = "".join(f"{name}{size}" for name, size in (("PP", pp), ("PCP", pcp), ("DCP", dcp)) if size > 1)
    return f"{kind}{width}{more}"


def read_method(fields: Fields) -> str | None:
    """Returns how a row of InferenceX says that drafts are made, `off` among it, in lower case; None where
    it does not say.
    """
    for name, off in (("spec_method", "none"), ("spec_decoding", "none"), ("mtp", "off")):
        method = fields.text(name)
        if method is not None:
            speculation = "mtp" if name == "mtp" and method.lower() == "on" else method.lower()
            return OFF if speculation == off else speculation
    return None


def sglang_method(algorithm: str, draft_model: str | None) -> str | None:
    """Returns the method that SGLang calls so; None for one that points have no name for.

    Args:
        algorithm: of `--speculative-algorithm`.
        draft_model: the draft checkpoint, if it is another one than the target's. EAGLE without one drafts
            by the target's own MTP layers.
    """
    if algorithm.upper() in ("EAGLE", "NEXTN"):
        return "mtp" if draft_model is None else None
    return _SGLANG_METHODS.get(algorithm.upper())
