"""What `vllm bench serve --save-result` or `--append-result` writes: a JSON object, lines of them, a list.

Times are in milliseconds, `duration` in seconds. `failed` and the `spec_decode_*` fields are of newer
versions (0.32 has them); without `failed`, the requests that failed are `num_prompts` − `completed`.
InferenceX's own copy of the tool writes the same fields.
`max_concurrent_requests` is not read: it counts all requests that touched one second.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtpbench.errors import InputError
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.bench_run import MOST_FAILED, read_runs
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import FileRow, describe, read_json
from mtpbench_analysis.importers.fields import (
    RATE_TOLERANCE,
    Fields,
    Run,
    StatedRate,
    Times,
    Timing,
    UnusableError,
    as_count,
    as_number,
    show,
)

_MS = 1e-3

_USUAL_SHARE = 0.9
"""Of the requests, how many have to have one and the same length for it to be the nominal one."""


def is_result(value: object) -> bool:
    """Returns whether a JSON value looks like a result of `vllm bench serve`."""
    return isinstance(value, dict) and "total_token_throughput" in value and "completed" in value


def read_vllm(path: Path, declared: Declared) -> PointSet:
    """Returns the points of a result file of `vllm bench serve`; what can't be one is in `unused`.

    Raises:
        ImportFileError: the file is not JSON.
        InputError: no arm or no GPUs were declared.
    """
    return read_runs(path, read_json(path), to_run, _with_gpus_of(path, declared))


_SA_BENCH = re.compile(r"results_concurrency_\d+_gpus_(\d{1,6})(?:_ctx_(\d{1,6})_gen_(\d{1,6}))?\.json")


def _with_gpus_of(path: Path, declared: Declared) -> Declared:
    """Returns what is declared, with the GPUs that sa-bench writes into a file's name.

    Raises:
        InputError: they contradict those that were declared.
    """
    found = _SA_BENCH.fullmatch(path.name)
    if found is None:
        return declared
    gpus, *roles = (int(size) if size else None for size in found.groups())
    if declared.total_gpus is not None:
        if declared.total_gpus != gpus:
            raise InputError(f"{path}: its name says {gpus} GPUs, but {declared.total_gpus} are declared")
        return declared
    if None in roles or sum(size or 0 for size in roles) != gpus:
        return replace(declared, gpus=gpus)
    return replace(declared, prefill_gpus=roles[0], decode_gpus=roles[1])


def to_run(row: FileRow) -> Run:
    """Returns one result as a run.

    Raises:
        UnusableError: it is something else, or lacks a number that a point needs.
    """
    if not is_result(row.value):
        raise UnusableError(f"not a result of vllm bench serve: {describe(row.value)}")
    fields = Fields(row.value, row.what)
    duration = fields.positive("duration")
    completed = fields.count("completed")
    tokens_in, tokens_out = fields.positive("total_input_tokens"), fields.positive("total_output_tokens")
    rate, failed = read_rate(fields), _count_failed(fields, completed)
    return Run(
        what=row.what,
        duration_s=duration,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        completed=completed,
        failed=failed,
        requests_rps=fields.known("request_throughput"),
        **read_times(fields, "e2el_ms"),
        rates=(
            StatedRate(
                name="output_throughput",
                stated_tps=fields.positive("output_throughput"),
                expected_tps=tokens_out / duration,
            ),
            StatedRate(
                name="total_token_throughput",
                stated_tps=fields.positive("total_token_throughput"),
                expected_tps=(tokens_in + tokens_out) / duration,
            ),
        ),
        concurrency=read_concurrency(fields, rate, completed + (failed or 0)),
        rate_rps=rate,
        burstiness=1.0 if fields.values.get("burstiness") is None else fields.positive("burstiness"),
        queued_s=_read_queue(fields),
        **_read_acceptance(fields),
        model=fields.text("model_id"),
        isl=find_length(fields, "input_lens", tokens_in, completed),
        osl=find_length(fields, "output_lens", tokens_out, completed),
        date=_read_date(fields.text("date")),
        problems=(*_check_acceptance(fields), *check_requests(fields, completed, tokens_out)),
        notes=fields.notes,
    )


def read_times(fields: Fields, e2el: str) -> dict[str, Any]:
    """Returns the times of a run.

    Args:
        fields: the result, its times in milliseconds.
        e2el: how it names the end-to-end latency behind `mean_` and `median_`.

    Raises:
        UnusableError: there is no median TPOT.
    """
    median = Timing(name="median_tpot_ms", seconds=fields.positive("median_tpot_ms") * _MS)
    names = {"tpot": "tpot_ms", "ttft": "ttft_ms", "gaps": "itl_ms", "e2el": e2el}
    times = {name: _read_spread(fields, metric) for name, metric in names.items()}
    return {"interactivity": median, **times}


_STATISTIC = re.compile(r"(mean|median|min|max|p(\d+(?:\.\d+)?))_(.+)")


def _read_spread(fields: Fields, metric: str) -> Times:
    """Returns mean and percentiles of a time."""
    by_percent: dict[float, Timing] = {}
    for name in fields.values:
        found = _STATISTIC.fullmatch(name)
        if found is None or found[3] != metric or found[1] == "mean":
            continue
        percent = _NAMED[found[1]] if found[1] in _NAMED else float(found[2])
        if percent <= 100 and (timing := _read_timing(fields, name)) is not None:
            by_percent[percent] = timing
    return Times(mean=_read_timing(fields, f"mean_{metric}"), percentiles=by_percent)


_NAMED = {"min": 0.0, "median": 50.0, "max": 100.0}


def _read_timing(fields: Fields, name: str) -> Timing | None:
    """Returns a time in milliseconds as seconds, with its name; None where missing or not above 0."""
    # Chunks that came at once have gaps of 0.
    value = fields.known(name, zero=name.endswith("_itl_ms"))
    return Timing(name=name, seconds=value * _MS) if value else None


def _read_queue(fields: Fields) -> float | None:
    queued_ms = fields.known("mean_client_queue_time_ms", zero=True)
    return None if queued_ms is None else queued_ms * _MS


def read_rate(fields: Fields) -> float | None:
    """Returns `request_rate`, requests per second of an open loop; None for `inf`, all at once.

    Raises:
        UnusableError: it is no rate (SGLang's `trace`), or changed as the run went on (vLLM's ramps, which
            write `inf` beside it): the load of such a run is nothing that a curve has.
    """
    refuse_ramps(fields.values)
    dataset = fields.text("dataset_name") or ""
    if dataset in _TIMED_DATASETS:
        raise UnusableError(f"the requests of {dataset} are sent by its own timestamps: {NO_POINT}")
    value = fields.values.get("request_rate")
    if value is None or value == float("inf") or (isinstance(value, str) and value.lower() == "inf"):
        return None
    number = as_number(value)
    if number is None or number <= 0:
        raise UnusableError(f"request_rate is {show(value)}: a number above 0 or inf is needed")
    return number


NO_POINT = "a load that changes as the run goes on is no point of a curve"

_TIMED_DATASETS = ("timed_trace",)


def refuse_ramps(values: Mapping[str, Any]) -> None:
    """Refuses a load that rises or falls as the run goes on.

    Args:
        values: where a tool writes its load; a name with `ramp` in it that is set, or changes of rate.

    Raises:
        UnusableError: there is one.
    """
    for name, value in values.items():
        is_ramp = "ramp" in name.lower() or name == "rps_change_events"
        if is_ramp and value not in (None, False, 0, "", [], {}):
            shown = show(value) if not isinstance(value, dict | list) else "set"
            raise UnusableError(f"{name} is {shown}: {NO_POINT}")


def find_length(fields: Fields, name: str, tokens: float, completed: int) -> int | None:
    """Returns the length that all requests were made to have, where the file shows one: by request, or as the
    mean.

    A mean that is no whole number shows nothing: lengths may have been drawn from a range.
    """
    by_request = fields.values.get(name)
    if isinstance(by_request, list) and by_request:
        lengths = [length for item in by_request if (length := as_number(item)) is not None and length > 0]
        usual = max(set(lengths), key=lengths.count, default=0.0)
        share = lengths.count(usual) / len(by_request)
        return as_count(usual) if share >= _USUAL_SHARE else None
    return as_count(tokens / completed)


def _count_failed(fields: Fields, completed: int) -> int | None:
    """Returns the requests that did not complete: as counted, as listed, or of the prompts not completed."""
    prompts = fields.whole("num_prompts")
    counts = (
        fields.whole("failed", zero=True),
        count_errors(fields),
        prompts - completed if prompts is not None and prompts >= completed else None,
    )
    known = [count for count in counts if count is not None]
    if not known:
        fields.note("failed requests", "not in the file")
        return None
    return max(known)


def count_errors(fields: Fields) -> int | None:
    """Returns how many requests of the list have an error; None where the file has no list."""
    errors = fields.values.get("errors")
    return sum(1 for error in errors if error) if isinstance(errors, list) else None


_LISTS = ("input_lens", "output_lens", "ttfts", "itls", "errors", "generated_texts")
"""One entry a request each, failed ones too."""

_USUAL_ENDS = ("length", "stop", "eos", "tool_calls", "function_call")


def check_requests(fields: Fields, completed: int, output_tokens: float) -> list[str]:
    """Returns what the file's lists of requests and counts of their ends contradict."""
    return [*_check_lists(fields, completed, output_tokens), *_check_ends(fields, completed)]


def _check_lists(fields: Fields, completed: int, output_tokens: float) -> Iterator[str]:
    prompts = as_number(fields.values.get("num_prompts"))
    if prompts is not None and prompts < completed:
        yield f"{completed} requests are completed, of num_prompts {prompts:g}"
    lists = {name: fields.values.get(name) for name in _LISTS}
    sizes = {name: len(items) for name, items in lists.items() if isinstance(items, list) and items}
    if len(set(sizes.values())) > 1:
        yield f"the lists of requests differ in length: {', '.join(f'{n} {s}' for n, s in sizes.items())}"
    lengths = lists["output_lens"]
    if isinstance(lengths, list) and lengths:
        served = [length for item in lengths if (length := as_number(item)) is not None and length > 0]
        if len(served) < (1 - MOST_FAILED) * completed:
            yield f"{completed} requests are completed, but only {len(served)} of output_lens have a token"
        if abs(sum(served) - output_tokens) > RATE_TOLERANCE * output_tokens:
            yield f"total_output_tokens {output_tokens:g} contradicts output_lens, which make {sum(served):g}"


def _check_ends(fields: Fields, completed: int) -> Iterator[str]:
    """Yields the ends that are failures, such as `abort`, where the file counts or lists them."""
    for name in ("finish_reason_counts", "finish_reasons", "finish_reason"):
        ends = fields.values.get(name)
        if isinstance(ends, list):
            ends = Counter(str(end) for end in ends if end is not None)
        if not isinstance(ends, Mapping):
            continue
        odd = {
            end: count
            for end, number in ends.items()
            if (count := as_number(number)) and end not in _USUAL_ENDS
        }
        if sum(odd.values()) > MOST_FAILED * completed:
            listed = ", ".join(f"{count:g} by {show(end)}" for end, count in odd.items())
            yield f"{sum(odd.values()):g} of {completed} requests did not end by length or stop: {listed}"


def read_concurrency(fields: Fields, rate: float | None, sent: int) -> int | None:
    """Returns `max_concurrency`, or all requests of a burst without one; None where it can't be read."""
    if fields.values.get("max_concurrency") is None and rate is None:
        return sent
    return fields.whole("max_concurrency")


def _read_date(text: str | None) -> str | None:
    """Returns `2026-11-23` for `20261123-154708`."""
    if text is None or len(text) < 8 or not text[:8].isdigit():
        return None
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"


def _read_acceptance(fields: Fields) -> dict[str, Any]:
    """Reads the acceptance by vLLM's counters over the run; empty where nothing was drafted or counted."""
    steps = fields.known("spec_decode_num_drafts", zero=True)
    drafted = fields.known("spec_decode_draft_tokens", zero=True)
    if not steps or not drafted:
        return {"drafted": None if steps is None and drafted is None else bool(steps or drafted)}
    rates = fields.values.get("spec_decode_per_position_acceptance_rates")
    shares = [as_number(share) for share in rates] if isinstance(rates, list) else []
    by_position = tuple(share for share in shares if share is not None and 0 <= share <= 1)
    if len(by_position) != len(shares):
        fields.note("spec_decode_per_position_acceptance_rates", "shares from 0 to 1 are needed")
        by_position = ()
    return {
        "drafted": True,
        "draft_tokens": as_count(drafted / steps),
        "draft_tokens_per_step": drafted / steps,
        "acceptance_length": fields.known("spec_decode_acceptance_length"),
        "acceptance_per_position": by_position or None,
    }


def _check_acceptance(fields: Fields) -> tuple[str, ...]:
    steps = as_number(fields.values.get("spec_decode_num_drafts"))
    accepted = as_number(fields.values.get("spec_decode_accepted_tokens"))
    stated = as_number(fields.values.get("spec_decode_acceptance_length"))
    if not steps or accepted is None or stated is None:
        return ()
    counted = 1 + accepted / steps
    if abs(counted - stated) <= RATE_TOLERANCE * counted:
        return ()
    return (
        f"spec_decode_acceptance_length {stated:.4g} contradicts spec_decode_accepted_tokens and "
        f"spec_decode_num_drafts, which make {counted:.4g}",
    )
