"""AIPerf's summary of a run: `profile_export_aiperf.json`, or the `.csv` beside it.

`inter_token_latency` is TPOT by request, (latency − TTFT) / (output tokens − 1), and its p50 is what is
wanted; the gap between chunks is AIPerf's `inter_chunk_latency`. (With `--per-chunk-usage` it subtracts the
tokens of the first chunk instead of 1.) Every metric names its unit, which is read, not assumed.
Its rates are over the window of its load phase, which is a little longer than `benchmark_duration` (first
request to last response; 11 ms in one run, 48 ms in another with failures), so a short run is allowed more.
`request_count` is of the requests that succeeded, `error_request_count` (missing where 0) of the others.
The CSV rounds to two decimals and says nothing of the load: not concurrency, nor rate, model or date.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.bench_run import read_runs
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import FileRow, FileRows, describe, read_json, read_text
from mtpbench_analysis.importers.fields import (
    RATE_TOLERANCE,
    DrawnLengths,
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
from mtpbench_analysis.importers.vllm_bench import NO_POINT, refuse_ramps

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0}

_ROUNDING = 0.005
"""Of the CSV's two decimals."""

_WINDOW_S = 0.1
"""How much longer than the duration AIPerf's own window may be."""

_THOUSANDS = re.compile(r",(?=(\d{3},)*\d{3}\.\d{2}$)")

_TAGS = {
    "Benchmark Duration": "benchmark_duration",
    "Error Request Count": "error_request_count",
    "Input Sequence Length": "input_sequence_length",
    "Inter Chunk Latency": "inter_chunk_latency",
    "Inter Token Latency": "inter_token_latency",
    "Output Sequence Length": "output_sequence_length",
    "Output Token Throughput": "output_token_throughput",
    "Request Count": "request_count",
    "Request Latency": "request_latency",
    "Request Throughput": "request_throughput",
    "Time to First Token": "time_to_first_token",
    "Token-Weighted Acceptance Length": "spec_decode_token_weighted_acceptance_length",
    "Total Input Sequence Length": "total_isl",
    "Total Output Sequence Length": "total_osl",
    "Total Token Throughput": "total_token_throughput",
}
"""The names of the CSV, and the keys of the JSON."""


def is_result(value: object) -> bool:
    """Returns whether a JSON value looks like AIPerf's summary of one run."""
    if not isinstance(value, dict):
        return False
    metrics = ("request_throughput", "request_latency", "request_count", "inter_token_latency")
    return any(isinstance(value.get(name), dict) and "unit" in value[name] for name in metrics)


def is_table(text: str) -> bool:
    """Returns whether the text of a CSV looks like AIPerf's summary of one run."""
    return re.match(r"\s*Metric,(avg|Value)\b", text) is not None


def read_aiperf(path: Path, declared: Declared) -> PointSet:
    """Returns the point of an AIPerf summary, JSON or CSV; what can't be one is in `unused`.

    Raises:
        ImportFileError: the file is neither.
        InputError: no arm or no GPUs were declared.
    """
    is_csv = path.suffix.lower() == ".csv"
    document = _read_csv(path) if is_csv else read_json(path)
    # One file per concurrency is how AIPerf writes, all of one name: the folder tells them apart.
    rows = tuple(FileRow(what=f"{path.parent.name}/{row.what}", value=row.value) for row in document.rows)
    named = replace(document, rows=rows)
    return read_runs(path, named, partial(to_run, rounded=is_csv), declared)


def _read_csv(path: Path) -> FileRows:
    text = read_text(path)
    if not is_table(text):
        raise ImportFileError(f"{path}: not AIPerf's table: it begins with {text.lstrip()[:40]!r}")
    return FileRows(rows=(FileRow(what=path.name, value=_read_table(path, text)),))


def to_run(row: FileRow, *, rounded: bool = False) -> Run:
    """Returns one summary as a run.

    Raises:
        UnusableError: it is something else, or lacks a number that a point needs.
    """
    if not is_result(row.value):
        raise UnusableError(f"not AIPerf's summary of a run: {describe(row.value)}")
    fields = Fields(row.value, row.what)
    tpot = _need_time(fields, "inter_token_latency", "p50")
    duration = _need_time(fields, "benchmark_duration", "avg")
    completed = as_count(requests := _need(fields, "request_count", "avg"))
    if completed is None:
        raise UnusableError(f"request_count avg is {requests:g}: a whole number of requests is needed")
    tokens_in = _need_tokens(fields, "total_isl", "input_sequence_length", completed)
    tokens_out = _need_tokens(fields, "total_osl", "output_sequence_length", completed)
    per_request = {"output_token_throughput": tokens_out, "total_token_throughput": tokens_in + tokens_out}
    load = read_load(fields)
    return Run(
        what=row.what,
        duration_s=duration.seconds,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        completed=completed,
        failed=_count_failed(fields),
        interactivity=tpot,
        tpot=_read_spread(fields, "inter_token_latency"),
        ttft=_read_spread(fields, "time_to_first_token"),
        e2el=_read_spread(fields, "request_latency"),
        gaps=_read_spread(fields, "inter_chunk_latency"),
        requests_rps=_number(fields, "request_throughput", "avg"),
        rates=tuple(
            StatedRate(name=name, stated_tps=stated, expected_tps=tokens / duration.seconds)
            for name, tokens in per_request.items()
            if (stated := _number(fields, name, "avg"))
        ),
        tolerance=RATE_TOLERANCE + (_WINDOW_S + (_ROUNDING if rounded else 0)) / duration.seconds,
        acceptance_length=_number(fields, "spec_decode_token_weighted_acceptance_length", "avg"),
        draft_tokens_per_step=_drafts_per_step(fields),
        acceptance_caveats=("ignore_eos",) if _ignores_eos(fields) else (),
        drafted=True if "spec_decode_token_weighted_acceptance_length" in fields.values else None,
        **load,
        date=_read_date(fields.text("start_time")),
        problems=_find_problems(fields, tpot.seconds, rounded),
        notes=fields.notes,
    )


def _ignores_eos(fields: Fields) -> bool:
    endpoint = _object(_object(fields.values.get("input_config")).get("endpoint"))
    return _object(endpoint.get("extra")).get("ignore_eos") is True


def _drafts_per_step(fields: Fields) -> float | None:
    drafted, steps = (
        _number(fields, f"total_spec_decode_{name}", "avg") for name in ("draft_tokens", "steps")
    )
    return drafted / steps if drafted and steps else None


def _count_failed(fields: Fields) -> int | None:
    """Returns the requests that failed or were cancelled; AIPerf leaves the metric out where none did."""
    errors = [as_number(error.get("count")) for error in _objects(fields.values.get("error_summary"))]
    summed = int(sum(count for count in errors if count and count > 0))
    if "error_request_count" not in fields.values:
        return summed
    failed = _number(fields, "error_request_count", "avg")
    if failed is None or failed < 0:
        fields.note("failed requests", "error_request_count is no number of 0 or more")
        return summed or None
    return max(summed, int(failed))


_REPLAYS = ("fixed_schedule", "fixed-schedule", "user_centric", "user_centric_rate", "trace")
"""Phases whose requests are sent by a data set's timestamps, or by each user's own turns."""


def read_load(fields: Fields) -> dict[str, Any]:
    """Reads concurrency, rate, model and lengths of `input_config`, which older versions wrote in another
    form.
    """
    config = fields.section("input_config").values
    phases = [phase for phase in _objects(config.get("phases")) if phase.get("kind") != "warmup"]
    old = _object(config.get("loadgen"))
    phase = Fields(phases[-1] if phases else old, fields.what)
    refuse_ramps(phase.values)
    if phase.values.get("type") in _REPLAYS or phase.values.get("fixed_schedule"):
        raise UnusableError(f"the load is {show(phase.values.get('type', 'fixed_schedule'))}: {NO_POINT}")
    rate = _setting(phase, "rate", "request_rate")
    names = [item.get("name") for item in _objects(_object(config.get("models")).get("items"))]
    model_names = _object(config.get("endpoint")).get("model_names")
    names += model_names if isinstance(model_names, list) else []
    lengths = _read_lengths(config)
    load = {
        # The old form of the configuration has a default of 1 beside a rate, and means no cap by it.
        "concurrency": phase.whole("concurrency") if phases or rate is None else None,
        "rate_rps": rate,
        "burstiness": _setting(phase, "smoothness", "arrival_smoothness") or 1.0,
        "model": names[0] if names and isinstance(names[0], str) else None,
        "isl": lengths[0] or _find_length(fields, "input_sequence_length"),
        "osl": lengths[1] or _find_length(fields, "output_sequence_length"),
        "drawn": _read_drawing(config),
    }
    fields.notes += phase.notes
    return load


def _setting(phase: Fields, *names: str) -> float | None:
    """Returns a number above 0 by one of its names; None where it is missing.

    Raises:
        UnusableError: it is something else, so that the load is unknown.
    """
    return next((phase.positive(name) for name in names if phase.values.get(name) is not None), None)


def _read_lengths(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    isl, osl = (as_number(side.get("mean")) for side in _length_settings(config))
    return as_count(isl), as_count(osl)


def _length_settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what the configuration says of input and of output lengths."""
    prompts = [_object(item.get("prompts")) for item in _objects(config.get("datasets"))]
    old = _object(_object(config.get("input")).get("prompt"))
    if not prompts:
        return _object(old.get("input_tokens")), _object(old.get("output_tokens"))
    return _object(prompts[0].get("isl")), _object(prompts[0].get("osl"))


def _read_drawing(config: Mapping[str, Any]) -> DrawnLengths | None:
    """Returns how lengths were drawn around their means, the wider of both; None where means are missing."""
    sides = [(as_number(side.get("mean")), side.get("stddev")) for side in _length_settings(config)]
    if not all(mean and mean > 0 for mean, _ in sides):
        return None
    return DrawnLengths(mean=1, deviation=max((as_number(dev) or 0) / (mean or 1) for mean, dev in sides))


def _find_length(fields: Fields, name: str) -> int | None:
    """Returns the length that all requests had, if they had one."""
    low, high = _number(fields, name, "min"), _number(fields, name, "max")
    return as_count(low) if low == high else None


def _find_problems(fields: Fields, tpot_s: float, rounded: bool) -> tuple[str, ...]:
    problems = []
    if fields.values.get("was_cancelled") is True:
        problems.append("the run was cancelled (was_cancelled)")
    if fields.values.get("is_complete") is False:
        why = fields.text("incomplete_reason") or "is_complete is false"
        problems.append(f"the run is not complete: {why}")
    if rounded and tpot_s * 1000 * RATE_TOLERANCE < _ROUNDING:
        problems.append(
            f"inter_token_latency p50 {tpot_s * 1000:.2f} ms is rounded by more than {RATE_TOLERANCE:.0%}; "
            "take the JSON beside this CSV"
        )
    return tuple(problems)


def _metric(fields: Fields, name: str) -> Fields | None:
    value = fields.values.get(name)
    return Fields(value, fields.what) if isinstance(value, dict) else None


def _number(fields: Fields, name: str, stat: str) -> float | None:
    metric = _metric(fields, name)
    return None if metric is None else as_number(metric.values.get(stat))


def _need(fields: Fields, name: str, stat: str) -> float:
    metric = _metric(fields, name)
    if metric is None:
        hint = "; without --streaming there is none" if name == "inter_token_latency" else ""
        raise UnusableError(f"{name} is missing{hint}")
    try:
        return metric.positive(stat)
    except UnusableError as error:
        raise UnusableError(f"{name}: {error}") from None


def _need_time(fields: Fields, name: str, stat: str) -> Timing:
    value = _need(fields, name, stat)
    return Timing(name=f"{name} {stat}", seconds=value * _unit(fields, name))


_STATISTIC = re.compile(r"min|max|p(\d{1,2}(?:\.\d+)?)")
_ENDS = {"min": 0.0, "max": 100.0}


def _read_spread(fields: Fields, name: str) -> Times:
    """Returns mean and percentiles of a time, in the unit that it names."""
    metric = _metric(fields, name)
    if metric is None:
        return Times()
    percentiles = {
        _ENDS[stat] if stat in _ENDS else float(found[1]): timing
        for stat in metric.values
        if (found := _STATISTIC.fullmatch(stat)) and (timing := _time(fields, name, stat))
    }
    return Times(mean=_time(fields, name, "avg"), percentiles=percentiles)


def _time(fields: Fields, name: str, stat: str) -> Timing | None:
    value = _number(fields, name, stat)
    if value is None or value <= 0:
        return None
    return Timing(name=f"{name} {stat}", seconds=value * _unit(fields, name))


def _unit(fields: Fields, name: str) -> float:
    metric = _metric(fields, name)
    unit = metric.values.get("unit") if metric else None
    if not isinstance(unit, str) or unit not in _SECONDS:
        raise UnusableError(f"{name} has the unit {show(unit)}; one of {', '.join(_SECONDS)} is needed")
    return _SECONDS[unit]


def _need_tokens(fields: Fields, total: str, by_request: str, completed: int) -> float:
    """Returns the total; versions before it was exported give the mean by request."""
    if _metric(fields, total) is not None:
        return _need(fields, total, "avg")
    return _need(fields, by_request, "avg") * completed


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_date(text: str | None) -> str | None:
    return text[:10] if text and re.match(r"\d{4}-\d{2}-\d{2}", text) else None


def _read_table(path: Path, text: str) -> dict[str, Any]:
    """Returns the CSV in the form of the JSON; its two tables have a header of their own each.

    Raises:
        ImportFileError: it is no CSV.
    """
    metrics: dict[str, Any] = {}
    header: list[str] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline="")):
            if not cells or cells[0] == "Endpoint":
                header = []
            elif cells[0] == "Metric":
                header = ["avg" if name == "Value" else name for name in cells[1:]]
            elif header and (named := re.fullmatch(r"(.*?)(?: \(([^()]*)\))?", cells[0])):
                tag = _TAGS.get(named[1])
                if tag is not None and (named[2] or "") not in ("Success + Error",):
                    metrics[tag] = {"unit": named[2], **_read_cells(header, cells[1:])}
    except csv.Error as error:
        raise ImportFileError(f"{path}: {error}") from error
    return metrics


def _read_cells(header: list[str], cells: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        try:
            # Its two decimals tell thousands separators from a decimal comma.
            values[name] = float(_THOUSANDS.sub("", cell)) if cell else None
        except ValueError:
            values[name] = cell
    return values
