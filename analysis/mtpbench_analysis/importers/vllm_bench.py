"""What `vllm bench serve --save-result` or `--append-result` writes: a JSON object, lines of them, a list.

Times are in milliseconds, `duration` in seconds. `failed` and the `spec_decode_*` fields are of newer
versions (0.32 has them); without `failed`, the requests that failed are `num_prompts` − `completed`.
InferenceX's own copy of the tool writes the same fields.
`max_concurrent_requests` is not read: it counts all requests that touched one second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.bench_run import RATE_TOLERANCE, Run, StatedRate, Timing, read_runs
from mtpbench_analysis.importers.documents import FileRow, describe, read_json
from mtpbench_analysis.importers.fields import Declared, Fields, UnusableError, as_count, as_number, show

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
    return read_runs(path, read_json(path), to_run, declared)


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
    rate = read_rate(fields)
    return Run(
        what=row.what,
        duration_s=duration,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        completed=completed,
        failed=_count_failed(fields, completed),
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
        concurrency=_read_concurrency(fields, rate, completed),
        rate_rps=rate,
        **_read_acceptance(fields),
        model=fields.text("model_id"),
        isl=find_length(fields, "input_lens", tokens_in, completed),
        osl=find_length(fields, "output_lens", tokens_out, completed),
        date=_read_date(fields.text("date")),
        problems=_check_acceptance(fields),
        notes=fields.notes,
    )


def read_times(fields: Fields, e2el: str) -> dict[str, Any]:
    """Returns the times of a run: medians, and the means that the units are checked with.

    Args:
        fields: the result, its times in milliseconds.
        e2el: how it names the end-to-end latency behind `mean_` and `median_`.

    Raises:
        UnusableError: there is no median TPOT.
    """
    tpot = Timing(name="median_tpot_ms", seconds=fields.positive("median_tpot_ms") * _MS)
    ttft, e2e_latency = _read_timing(fields, "median_ttft_ms"), _read_timing(fields, f"median_{e2el}")
    p99 = _read_timing(fields, "p99_ttft_ms")
    return {
        "tpot": tpot,
        "typical_tpot": _read_timing(fields, "mean_tpot_ms") or tpot,
        "ttft": ttft,
        "typical_ttft": _read_timing(fields, "mean_ttft_ms") or ttft,
        "typical_e2el": _read_timing(fields, f"mean_{e2el}") or e2e_latency,
        "ttft_p99_s": p99.seconds if p99 else None,
        "e2el_p50_s": e2e_latency.seconds if e2e_latency else None,
    }


def _read_timing(fields: Fields, name: str) -> Timing | None:
    """Returns a time in milliseconds as seconds, with its name; None where missing or not above 0."""
    value = fields.known(name)
    return None if value is None else Timing(name=name, seconds=value * _MS)


def read_rate(fields: Fields) -> float | None:
    """Returns `request_rate`, requests per second of an open loop; None for `inf`, all at once.

    Raises:
        UnusableError: it is no rate (SGLang's `trace`): the load of such a run is nothing that a curve has.
    """
    value = fields.values.get("request_rate")
    if value is None or value == float("inf") or (isinstance(value, str) and value.lower() == "inf"):
        return None
    number = as_number(value)
    if number is None or number <= 0:
        raise UnusableError(f"request_rate is {show(value)}: a number above 0 or inf is needed")
    return number


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
    failed = fields.whole("failed", zero=True)
    if failed is not None:
        return failed
    prompts = fields.whole("num_prompts")
    if prompts is not None and prompts >= completed:
        return prompts - completed
    fields.note("failed requests", "not in the file")
    return None


def _read_concurrency(fields: Fields, rate: float | None, completed: int) -> int | None:
    """Returns `max_concurrency`, or all prompts of a burst without one."""
    most = fields.whole("max_concurrency")
    if most is not None or rate is not None:
        return most
    return fields.whole("num_prompts") or completed


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
        return {"drafted": None if steps is None else False}
    rates = fields.values.get("spec_decode_per_position_acceptance_rates")
    shares = [as_number(share) for share in rates] if isinstance(rates, list) else []
    by_position = tuple(share for share in shares if share is not None and 0 <= share <= 1)
    if len(by_position) != len(shares):
        fields.note("spec_decode_per_position_acceptance_rates", "shares from 0 to 1 are needed")
        by_position = ()
    return {
        "drafted": True,
        "draft_tokens": as_count(drafted / steps),
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
