"""Pure: a schedule in the form that each engine takes, and as a document with its doubts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any, Literal, get_args

from packaging.version import InvalidVersion, Version

from mtpbench.errors import InputError
from mtpbench.records import Method, Speculation
from mtpbench.records import to_json as record_to_json
from mtpbench_analysis.document import Document, List, Table, Text, filled, json_text
from mtpbench_analysis.numbers import counted, fixed, listed, rate, speed, spread, times
from mtpbench_analysis.schedule.measured import Doubt, Rung, Schedule

EngineForm = Literal["vllm", "sglang", "trtllm", "mtpbench"]
ENGINE_FORMS: tuple[EngineForm, ...] = get_args(EngineForm)
_SGLANG_ALGORITHMS: dict[Method, str] = {"mtp": "EAGLE", "eagle3": "EAGLE3"}
_TRTLLM_SINCE = "1.3.0rc15"
_TRTLLM_METHODS: tuple[Method, ...] = ("mtp", "eagle3", "draft_model", "suffix")


def to_engine_form(schedule: Schedule, engine: EngineForm) -> str:
    """Returns the table alone, as the engine takes it.

    Raises:
        InputError: the engine would not follow it; says what would be right.
    """
    check_engine(schedule, engine)
    if not schedule.most:
        raise InputError(
            "no depth beats speculation off at any measured batch: leave speculation out; there is no table"
        )
    if engine == "vllm":
        return json.dumps(schedule.table) + "\n"
    if engine == "sglang":
        slots = {str(item.first): {"candidate_steps": [item.draft_tokens]} for item in schedule.ranges}
        return json.dumps(slots, indent=2) + "\n"
    if engine == "trtllm":
        keys = "".join(f"  {last}: {drafts}\n" for last, drafts in _trtllm_keys(schedule).items())
        return f"max_draft_len: {schedule.most}\ndraft_len_schedule:\n{keys}"
    return json.dumps({f"{schedule.speculation.method}-by-load": _arm(schedule)}) + "\n"


def _trtllm_keys(schedule: Schedule) -> dict[int, int]:
    """Returns the depths by the last batch of each; above the last of them TensorRT-LLM drafts nothing."""
    *before, last = schedule.ranges
    kept = [*before, last] if last.draft_tokens else before
    return {item.last: item.draft_tokens for item in kept}


def _arm(schedule: Schedule) -> dict[str, Any]:
    """Returns the arm of a sweep that drafts by the schedule, pinned as its deepest arm is; JSON is YAML."""
    speculation, arm = schedule.speculation, schedule.arms[max(schedule.arms)]
    names = ("draft_model", "draft_sampling", "rejection_method")
    kept = {name: value for name in names if (value := getattr(speculation, name)) is not None}
    checkpoint = {} if arm.checkpoint is None else {"checkpoint": arm.checkpoint}
    table = {"depth": {"by_batch": schedule.table}}
    pinned = _pinned(schedule.arms[schedule.most].speculation) if schedule.most else {}
    return {
        "method": speculation.method,
        "draft_tokens": schedule.most,
        **kept,
        **checkpoint,
        **table,
        **pinned,
    }


def _pinned(speculation: Speculation | None) -> dict[str, Any]:
    """Returns what pins the acceptance of an arm: a golden table or rates; a length alone pins one depth."""
    policy = None if speculation is None else speculation.acceptance
    if policy is None or policy.pinned_by not in ("sweep", "golden"):
        return {}
    if policy.table is not None:
        return {"acceptance": {"golden": policy.table.mode, "model": policy.table.model}}
    return {"acceptance": {"rates": list(policy.rates)}} if policy.rates is not None else {}


def check_engine(schedule: Schedule, engine: EngineForm) -> None:
    """Checks that an engine follows the schedule.

    Raises:
        InputError: it would ignore it without an error, or refuse it; says what would be right.
    """
    if why := _CHECKS[engine](schedule):
        raise InputError(f"{why} (--engine mtpbench writes the table as an arm of a sweep)")


def _check_vllm(schedule: Schedule) -> str | None:
    if schedule.group.dp > 1:
        return (
            "vLLM drops num_speculative_tokens_per_batch_size with a warning where data_parallel_size is "
            f"above 1 ({schedule.group.layout}): ranks would draft differently; use workers of one rank "
            "(TP), or a static depth"
        )
    if schedule.speculation.method == "suffix":
        return "vLLM drops the table for suffix decoding, which only its first runner has; use a static depth"
    return None


def _check_sglang(schedule: Schedule) -> str | None:
    method = schedule.speculation.method
    if schedule.group.attention_dp:
        return (
            "SGLang turns --speculative-adaptive off with a warning under attention DP "
            f"({schedule.group.layout}); use workers without it (TP), or a static depth"
        )
    if method not in _SGLANG_ALGORITHMS:
        return (
            f"SGLang has adaptive depths for {listed([*_SGLANG_ALGORITHMS])}, not for {method}; use a static "
            "depth"
        )
    return None


def _check_trtllm(schedule: Schedule) -> str | None:
    method, first = schedule.speculation.method, schedule.ranges[0]
    if earlier := _earlier_trtllm(schedule):
        return (
            f"TensorRT-LLM {earlier} reads a key of draft_len_schedule as the first batch of its depth, not "
            f"the last, which is known of {_TRTLLM_SINCE} and later; use one of these, or a static depth"
        )
    if method not in _TRTLLM_METHODS:
        return (
            f"TensorRT-LLM has draft_len_schedule for {listed(_TRTLLM_METHODS)}, not for {method}; use a "
            "static depth"
        )
    if any("max_concurrency" in str(flags) for flags in schedule.point.engine.flags.values()):
        return "TensorRT-LLM takes draft_len_schedule or max_concurrency, not both; take max_concurrency away"
    if first.draft_tokens != schedule.most:
        return (
            f"TensorRT-LLM needs the most drafts in the first range (max_draft_len), and here batches "
            f"{first.first} to {first.last} draft {first.draft_tokens} of {schedule.most}; use a static depth"
        )
    return None


def _earlier_trtllm(schedule: Schedule) -> str | None:
    """Returns the release that the sweep measured, where it reads the table in another way."""
    engine = schedule.point.engine
    if engine.name != "trtllm" or engine.version is None:
        return None
    try:
        return engine.version if Version(engine.version) < Version(_TRTLLM_SINCE) else None
    except InvalidVersion:
        return None


_CHECKS: dict[EngineForm, Callable[[Schedule], str | None]] = {
    "vllm": _check_vllm,
    "sglang": _check_sglang,
    "trtllm": _check_trtllm,
    "mtpbench": lambda _: None,
}


# ------------------------------------------------------------------------------------------------- for people


def write_schedule(schedule: Schedule, engine: EngineForm) -> Document:
    """Returns the schedule as a document: what to give the engine, the table, and where it is in doubt."""
    return Document(
        title=f"{schedule.speculation.method}: draft tokens by batch, {schedule.point.topology.name}",
        simulated=schedule.point.simulated,
        blocks=filled(
            Text(lines=_how_to_give(schedule, engine)),
            _ranges_table(schedule),
            _rungs_table(schedule),
            List(id="doubts", title="In doubt", items=tuple(map(_doubt, schedule.doubts))),
            List(id="notes", title="What it rests on", items=notes_of(schedule, engine)),
            List(id="left_out", title="Not used", items=schedule.left_out),
        ),
    )


def _how_to_give(schedule: Schedule, engine: EngineForm) -> tuple[str, ...]:
    if not schedule.most:
        return ("No depth beats speculation off at any measured batch: leave speculation out.",)
    return (_GIVEN[engine](schedule),)


def _give_vllm(schedule: Schedule) -> str:
    config = {
        "method": schedule.speculation.method,
        "num_speculative_tokens": schedule.most,
        "num_speculative_tokens_per_batch_size": schedule.table,
    }
    return f"vLLM: --speculative-config {shlex.quote(json.dumps(config))}"


def _give_sglang(schedule: Schedule) -> str:
    algorithm = _SGLANG_ALGORITHMS[schedule.speculation.method]
    return (
        f"SGLang: --speculative-algorithm {algorithm} --speculative-num-steps {schedule.most} "
        f"--speculative-eagle-topk 1 --speculative-num-draft-tokens {schedule.most + 1} "
        "--speculative-adaptive --speculative-adaptive-config FILE, and in FILE: "
        + json.dumps(json.loads(to_engine_form(schedule, "sglang")))
    )


def _give_trtllm(schedule: Schedule) -> str:
    keys = ", ".join(f"{last}: {drafts}" for last, drafts in _trtllm_keys(schedule).items())
    return (
        f"TensorRT-LLM, in speculative_config: max_draft_len: {schedule.most}, draft_len_schedule: {{{keys}}}"
    )


def _give_mtpbench(schedule: Schedule) -> str:
    return f"An arm of a sweep, to measure it against the static ones: {json.dumps(_arm(schedule))}"


_GIVEN: dict[EngineForm, Callable[[Schedule], str]] = {
    "vllm": _give_vllm,
    "sglang": _give_sglang,
    "trtllm": _give_trtllm,
    "mtpbench": _give_mtpbench,
}


def _ranges_table(schedule: Schedule) -> Table:
    return Table(
        id="schedule",
        title="Draft tokens by the batch of a step of one engine core",
        headers=("batch", "draft tokens"),
        rows=tuple((_span(item.first, item.last), str(item.draft_tokens)) for item in schedule.ranges),
    )


def _rungs_table(schedule: Schedule) -> Table:
    depths = sorted(schedule.rungs[0].output_tps_per_gpu)
    return Table(
        id="rungs",
        title="Measured: output tok/s/GPU by depth",
        headers=("batch", "concurrency", *(f"{depth} drafts" for depth in depths), "best", "over the next"),
        rows=tuple(
            (
                fixed(rung.batch, 0 if rung.batch == int(rung.batch) else 2),
                str(rung.concurrency),
                *(rate(rung.output_tps_per_gpu[depth]) for depth in depths),
                str(rung.best),
                _lead(rung),
            )
            for rung in schedule.rungs
        ),
        caption=f"In brackets: {schedule.confidence:.0%} intervals of the ratio.",
    )


def _lead(rung: Rung) -> str:
    text = f"{times(rung.ratio)}× {rung.second}"
    interval = rung.interval
    return text if interval is None else f"{text} {spread(interval.low, interval.high, times)}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _doubt(doubt: Doubt) -> str:
    depths = listed([str(depth) for depth in doubt.depths])
    why = (
        "the interval of their ratio holds 1"
        if doubt.is_known
        else "nothing tells the noise of runs (repeats or time blocks)"
    )
    return f"batch {_span(doubt.first, doubt.last)}: {depths} draft tokens: {why}"


def _in_batch(schedule: Schedule) -> str:
    if schedule.point.topology.disaggregated:
        return "requests in flight × the share of their time after the first token"
    return "requests in flight, those that wait for their first token too,"


def notes_of(schedule: Schedule, engine: EngineForm) -> tuple[str, ...]:
    """Returns what the schedule rests on, and what the engine does beyond what was measured."""
    first, last = schedule.rungs[0], schedule.rungs[-1]
    cores = counted(schedule.cores, "engine core")
    notes = [
        f"Batch: {_in_batch(schedule)} / {cores} that decode; the best depth "
        "serves the most output tokens/s in a closed loop. Between two measured batches the change-over is "
        "interpolated in the logarithm of the batch; how the curves run there is in no interval.",
    ]
    if first.batch > 1:
        notes.append(
            f"Below batch {speed(first.batch)}, the smallest that was measured, its depth is taken: not "
            "measured."
        )
    kept = schedule.ranges[-1].draft_tokens
    above = 0 if engine == "trtllm" else kept
    notes.append(
        f"Above batch {speed(last.batch)}, the largest that was measured, the engine drafts {above}"
        + (": its rule above the last key" if above != kept else ", as there")
        + "; nothing was measured."
    )
    return (*notes, *_ENGINE_NOTES.get(engine, ()))


_ENGINE_NOTES: dict[EngineForm, tuple[str, ...]] = {
    "vllm": (
        "vLLM counts the requests that are scheduled in a step, those in prefill too, and cuts every depth "
        "to num_speculative_tokens.",
    ),
    "sglang": (
        "SGLang rounds the batch up to a size of its CUDA graphs before it looks it up; "
        "--speculative-num-steps has to be among the depths.",
    ),
    "trtllm": (
        "A key is the last batch of its depth, as TensorRT-LLM reads it since 1.3.0rc15; earlier releases "
        "read it as the first one. max_concurrency has to be unset.",
    ),
}


def to_json(schedule: Schedule, engine: EngineForm) -> str:
    """Returns the schedule with its doubts for programs; unknown is null."""
    return json_text(
        {
            "schema_version": 1,
            "simulated": schedule.point.simulated,
            "engine": engine,
            "engine_form": to_engine_form(schedule, engine) if schedule.most else None,
            "method": schedule.speculation.method,
            "topology": schedule.point.topology.name,
            "engine_cores": schedule.cores,
            "most_draft_tokens": schedule.most,
            "by_batch": schedule.table,
            "confidence": schedule.confidence,
            "rungs": [record_to_json(rung) for rung in schedule.rungs],
            "doubts": [record_to_json(doubt) for doubt in schedule.doubts],
            "notes": list(notes_of(schedule, engine)),
            "not_used": list(schedule.left_out),
        }
    )
