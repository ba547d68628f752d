"""What `python -m sglang.bench_serving --output-file runs.jsonl` appends: one JSON object a line.

Times are in milliseconds, `duration` in seconds. What is peculiar:
    failed requests    only `--output-details` writes them (`errors`); else their number is unknown
    input tokens       0 in multi-turn runs, which are not counted: no tok/s/GPU can be made
    accept_length      the server's mean since its start, of its first data-parallel rank; all ranks are in
                       `server_info`, and their plain mean is taken
    request_rate       NaN's cousin `Infinity` for a burst; `trace` for a replay
    random_input_len   written in every run, but means something for `random` prompts only
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtpbench.records import OFF
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.bench_run import read_runs
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import FileRow, describe, read_json
from mtpbench_analysis.importers.fields import (
    DrawnLengths,
    Fields,
    Run,
    StatedRate,
    UnusableError,
    as_number,
    drawn_from,
)
from mtpbench_analysis.importers.names import name_worker, sglang_method
from mtpbench_analysis.importers.vllm_bench import (
    check_requests,
    count_errors,
    find_length,
    read_concurrency,
    read_rate,
    read_times,
)


def is_result(value: object) -> bool:
    """Returns whether a JSON value looks like a line of SGLang's benchmark."""
    return (
        isinstance(value, dict)
        and "completed" in value
        and ("mean_e2e_latency_ms" in value or "total_output_tokens_retokenized" in value)
    )


def read_sglang(path: Path, declared: Declared) -> PointSet:
    """Returns the points of a JSONL of SGLang's benchmark; what can't be one is in `unused`.

    Raises:
        ImportFileError: the file holds no JSON.
        InputError: no arm or no GPUs were declared.
    """
    return read_runs(path, read_json(path), to_run, declared)


def to_run(row: FileRow) -> Run:
    """Returns one line as a run.

    Raises:
        UnusableError: it is something else, or lacks a number that a point needs.
    """
    if not is_result(row.value):
        raise UnusableError(f"not a line of sglang.bench_serving: {describe(row.value)}")
    fields = Fields(row.value, row.what)
    duration = fields.positive("duration")
    completed = fields.count("completed")
    tokens_in, tokens_out = _read_input(fields), fields.positive("total_output_tokens")
    rate = read_rate(fields)
    failed = _count_failed(fields)
    info = fields.section("server_info")
    length = _read_acceptance(fields, info)
    return Run(
        what=row.what,
        duration_s=duration,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        completed=completed,
        failed=failed,
        requests_rps=fields.known("request_throughput"),
        in_flight=fields.known("concurrency"),
        **read_times(fields, "e2e_latency_ms"),
        rates=_read_rates(fields, tokens_in / duration, tokens_out / duration),
        concurrency=read_concurrency(fields, rate, completed + (failed or 0)),
        rate_rps=rate,
        drafted=_speculates(info, length),
        **_read_speculation(info),
        checkpoint=info.text("model_path"),
        acceptance_length=length,
        # Its `random` cuts and repeats texts of ShareGPT; only `random-ids` draws tokens.
        acceptance_caveats=("random_prompts",) if fields.text("dataset_name") == "random-ids" else (),
        model=info.text("model_path"),
        version=info.text("version"),
        isl=_read_length(fields, "input", tokens_in, completed),
        osl=_read_length(fields, "output", tokens_out, completed),
        drawn=_read_drawing(fields),
        **_read_worker(info),
        workload=_describe_workload(fields),
        problems=check_requests(fields, completed, tokens_out),
        notes=[*fields.notes, *info.notes],
    )


def _read_input(fields: Fields) -> float:
    if as_number(fields.values.get("total_input_tokens")) == 0:
        raise UnusableError(
            "total_input_tokens is 0: SGLang's benchmark does not count the input of multi-turn runs, so "
            "there is no tok/s/GPU over input and output"
        )
    return fields.positive("total_input_tokens")


def _count_failed(fields: Fields) -> int | None:
    failed = count_errors(fields)
    if failed is None:
        fields.note("failed requests", "not in the file (`--output-details` writes them)")
    return failed


def _read_rates(fields: Fields, input_tps: float, output_tps: float) -> tuple[StatedRate, ...]:
    """Returns the file's rates beside its totals; `total_throughput` and `input_throughput` are of newer
    versions.
    """
    expected = {
        "input_throughput": input_tps,
        "output_throughput": output_tps,
        "total_throughput": input_tps + output_tps,
    }
    stated = {name: fields.known(name) for name in expected}
    return tuple(
        StatedRate(name=name, stated_tps=value, expected_tps=expected[name])
        for name, value in stated.items()
        if value is not None
    )


def _read_acceptance(fields: Fields, info: Fields) -> float | None:
    states = info.values.get("internal_states")
    ranks = states if isinstance(states, list) else []
    lengths = [
        length
        for state in ranks
        if isinstance(state, dict)
        and (length := as_number(state.get("avg_spec_accept_length"))) is not None
        and length >= 1
    ]
    return sum(lengths) / len(lengths) if lengths else fields.known("accept_length")


def _speculates(info: Fields, acceptance_length: float | None) -> bool | None:
    if acceptance_length is not None:
        return True
    if "speculative_algorithm" not in info.values:
        return None
    return info.values["speculative_algorithm"] is not None


def _read_speculation(info: Fields) -> dict[str, Any]:
    """Returns what drafts, and how deep, by the server's resolved options; empty where it does not say."""
    if "speculative_algorithm" not in info.values:
        return {}
    said = info.text("speculative_algorithm")
    if said is None:
        return {"method": OFF}
    draft, verified = info.text("speculative_draft_model_path"), info.whole("speculative_num_draft_tokens")
    draft = None if draft == info.text("model_path") else draft
    adaptive = info.values.get("speculative_adaptive")
    drafts = None
    if said.upper() == "DSPARK":
        # A block is drafted in one step; the number counts the token that the target adds.
        drafts = verified - 1 if verified and verified > 1 else None
    elif info.values.get("speculative_eagle_topk") in (None, 1):
        # A tree (top-k above 1) drafts more than one token a step.
        drafts = info.whole("speculative_num_steps")
    return {
        "method": sglang_method(said, draft),
        "draft_model": draft,
        "draft_tokens": drafts,
        "adaptive": adaptive if isinstance(adaptive, bool) else None,
    }


def _read_worker(info: Fields) -> dict[str, Any]:
    """Returns layout and GPUs of the server that answered; ranks of attention DP share the GPUs of TP."""
    others = ("pp_size", "dp_size", "ep_size")
    tp, (pp, dp, ep) = info.whole("tp_size"), (info.whole(n) if info.values.get(n) else 1 for n in others)
    if tp is None or pp is None or dp is None or ep is None:
        return {}
    attention_dp = info.values.get("enable_dp_attention")
    replicas = dp if attention_dp is False else 1
    layout = name_worker(tp * pp, experts=ep > 1, attention_dp=attention_dp is True, pp=pp)
    return {"worker": layout + (f"DP{dp}" if replicas > 1 else ""), "worker_gpus": tp * pp * replicas}


def _read_length(fields: Fields, side: str, tokens: float, completed: int) -> int | None:
    if (fields.text("dataset_name") or "").startswith("random"):
        return fields.whole(f"random_{side}_len")
    return find_length(fields, f"{side}_lens", tokens, completed)


def _range_ratio(fields: Fields) -> float | None:
    """Returns the share of the nominal length from which lengths of random prompts are drawn."""
    if not (fields.text("dataset_name") or "").startswith("random"):
        return None
    ratio = fields.known("random_range_ratio", zero=True)
    return ratio if ratio is not None and ratio <= 1 else None


def _read_drawing(fields: Fields) -> DrawnLengths | None:
    ratio = _range_ratio(fields)
    return None if ratio is None else drawn_from(ratio)


def _describe_workload(fields: Fields) -> str | None:
    dataset, ratio = fields.text("dataset_name"), _range_ratio(fields)
    if dataset is None or ratio is None:
        return dataset and f"{dataset} prompts"
    lengths = "exact lengths" if ratio == 1 else f"lengths from {ratio:g} L to L"
    return f"{dataset} prompts, {lengths}"
