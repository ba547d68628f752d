"""The public InferenceX rows (JSON) as points, in every form they have had.

    the site's rows       `hardware`, `spec_method`, `prefill_*`, `decode_*`, and the figures in `metrics`
    second generation     `agg_*.json` since December 2025: `hw`, `spec_decoding`, the figures beside them;
                          `tp`/`ep` on one node, `prefill_*`/`decode_*` over several
    first generation      before: `tp`/`ep` for all, `mtp` on or off (of some), no ISL, OSL, image
A file is a list of rows (agg_bmk.json), or one of them. AgentX rows (`scenario_type`) have no fixed lengths
and are listed. Rows whose figures contradict each other are kept as invalid points, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused
from mtpbench_analysis.importers.documents import describe, join_reasons, read_document
from mtpbench_analysis.importers.fields import Declared, Fields, UnusableError, check_finite, show
from mtpbench_analysis.importers.inferencex_gpus import Gpus, count_gpus, find_contradictions, total_rate

__all__ = ["count_gpus", "is_row", "read_rows", "to_curve_point", "total_rate"]

_RUNNER = re.compile(r"(gb|b|h|a|mi)\d+[a-z]*(?=[-_]|$)", re.IGNORECASE)
"""The GPU at the head of a runner's name: `gb200` of `gb200-nv_1`."""

_ENGINES = {"dynamo-trtllm": "dynamo-trt", "sglang-disagg": "mori-sglang"}
_PRECISIONS = {"nvfp4": "fp4", "mxfp4": "fp4"}


def is_row(value: object) -> bool:
    """Whether a JSON value looks like an InferenceX row of any generation."""
    if not isinstance(value, dict):
        return False
    nested = isinstance(value.get("metrics"), dict) and {"spec_method", "framework", "conc"} & value.keys()
    flat = "tput_per_gpu" in value and {"hw", "conc"} <= value.keys()
    return bool(nested) or flat or is_agentic(value)


def is_agentic(row: Mapping[str, Any]) -> bool:
    """Whether a row is of AgentX traces, whose requests have no fixed lengths."""
    return "scenario_type" in row and ("request_metrics" in row or "hw" in row)


def read_rows(path: Path, declared: Declared | None = None) -> PointSet:
    """The points of InferenceX rows; a row that can't become one is in `unused`.

    Args:
        path: a JSON list of rows, or a single row.
        declared: what rows that do not say it are taken to be (arm, ISL and OSL of the first generation).

    Raises:
        ImportFileError: the file is not JSON, not InferenceX rows, or no row of it can be used.
    """
    document = read_document(path)
    points: list[CurvePoint] = []
    unused = list(document.unused)
    for row in document.rows:
        notes: list[Unused] = []
        try:
            if not is_row(row.value):
                raise UnusableError(f"not an InferenceX row: {describe(row.value)}")
            points.append(to_curve_point(row.value, row.what, declared or Declared(), notes))
        except UnusableError as error:
            unused.append(Unused(what=row.what, reason=str(error), kind="unusable"))
        else:
            unused += dict.fromkeys(notes)
    if not points:
        why = f" ({join_reasons(unused)})" if unused else ""
        raise ImportFileError(f"{path}: none of its {len(document.rows)} rows can be used{why}")
    return PointSet(sources=(str(path),), points=tuple(points), unused=tuple(unused))


def to_curve_point(
    row: Mapping[str, Any], source: str, declared: Declared, notes: list[Unused] | None = None
) -> CurvePoint:
    """One row as a point.

    Args:
        row: of any generation.
        source: the file and the row.
        declared: for what the row does not say.
        notes: takes what was left empty.

    Raises:
        UnusableError: a field is missing or something else, a rate is not above 0, or the GPU split can't be
            told.
    """
    if is_agentic(row):
        raise UnusableError(f"{show(row['scenario_type'])} traces: requests without a fixed ISL and OSL")
    fields = Fields(row, source)
    nested = row.get("metrics")
    metrics = Fields(nested if isinstance(nested, dict) else row, source)
    tput, interactivity = metrics.positive("tput_per_gpu"), _read_interactivity(metrics)
    arm = _read_arm(fields, declared)
    gpus, conc = count_gpus(row), fields.count("conc")
    osl = fields.whole("osl") or declared.osl
    reasons = find_contradictions(metrics, gpus, conc, osl)
    per_input, per_output = metrics.known("input_tput_per_gpu"), metrics.known("output_tput_per_gpu")
    run_url = fields.text("run_url")
    point = CurvePoint(
        arm=arm,
        interactivity_tps=interactivity,
        tput_tps_per_gpu=tput,
        output_tps_per_gpu=None if per_output is None else per_output * gpus.decode / gpus.total,
        input_tps_per_gpu=None if per_input is None else per_input * gpus.prefill / gpus.total,
        concurrency=conc,
        gpus=gpus.total,
        prefill_gpus=gpus.prefill if gpus.disaggregated else None,
        decode_gpus=gpus.decode if gpus.disaggregated else None,
        topology=_name_topology(fields, gpus),
        engine=_read_engine(fields) or declared.engine,
        version=declared.version,
        image=_read_image(fields) or declared.image,
        serving=_SERVING[gpus.disaggregated] or declared.serving_mode,
        hardware=_read_hardware(fields) or declared.hardware,
        precision=_read_precision(fields) or declared.precision,
        model=fields.text("infmax_model_prefix") or fields.text("model") or declared.model,
        isl=fields.whole("isl") or declared.isl,
        osl=osl,
        date=fields.text("date"),
        acceptance_mode="off" if arm == "off" else declared.acceptance_mode,
        power_w_per_gpu=None if row.get("power_valid") == 0 else metrics.known("avg_power_w"),
        ttft_p50_s=metrics.known("median_ttft"),
        ttft_p99_s=metrics.known("p99_ttft"),
        e2el_p50_s=metrics.known("median_e2el"),
        source=f"{source} {run_url}" if run_url else source,
        run_url=run_url,
        valid=not reasons,
        reasons=reasons,
    )
    if notes is not None:
        notes += [*fields.notes, *metrics.notes]
    return check_finite(point)


_SERVING = {True: "disaggregated", False: "aggregated", None: None}


def _read_interactivity(metrics: Fields) -> float:
    if metrics.values.get("median_intvty") is None and metrics.values.get("median_tpot") is not None:
        return 1 / metrics.positive("median_tpot")
    return metrics.positive("median_intvty")


def _read_arm(fields: Fields, declared: Declared) -> str:
    for name, off in (("spec_method", "none"), ("spec_decoding", "none"), ("mtp", "off")):
        said = fields.text(name)
        if said is not None:
            speculation = "mtp" if name == "mtp" and said.lower() == "on" else said.lower()
            return "off" if speculation == off else speculation
    if declared.arm is None:
        raise UnusableError(
            "spec_method, spec_decoding and mtp are missing: --arm names the side it belongs to"
        )
    return declared.arm


def _read_engine(fields: Fields) -> str | None:
    said = fields.text("framework")
    return None if said is None else _ENGINES.get(said.lower(), said.lower())


def _read_precision(fields: Fields) -> str | None:
    said = fields.text("precision")
    return None if said is None else _PRECISIONS.get(said.lower(), said.lower())


def _read_image(fields: Fields) -> str | None:
    """The image; file names hold `#` for `/`."""
    said = fields.text("image")
    return None if said is None else said.replace("#", "/")


def _read_hardware(fields: Fields) -> str | None:
    """`hardware`, or the GPU in the runner's name; both of a mixed deployment."""
    roles = [_find_gpu(fields.text(name)) for name in ("prefill_hw", "decode_hw")]
    if all(roles) and roles[0] != roles[1]:
        return f"{roles[0]}+{roles[1]}"
    return fields.text("hardware") or _find_gpu(fields.text("hw"))


def _find_gpu(runner: str | None) -> str | None:
    found = _RUNNER.match(runner) if runner else None
    return found[0].lower() if found else runner


def _name_topology(fields: Fields, gpus: Gpus) -> str:
    if gpus.disaggregated and (not gpus.recorded_split or "prefill_tp" not in fields.values):
        return f"{gpus.prefill}P+{gpus.decode}D"
    if not gpus.disaggregated:
        role = "prefill_" if "prefill_tp" in fields.values else ""
        workers = fields.whole("prefill_num_workers", zero=True) if fields.flag("is_multinode") else 1
        count = workers if workers and gpus.total % workers == 0 else 1
        return f"{count}x{_name_worker(fields, role, gpus.total // count)}"
    sides = []
    for role, gpu_count in (("prefill_", gpus.prefill), ("decode_", gpus.decode)):
        workers = fields.whole(f"{role}num_workers", zero=True) or 1
        sides.append(f"{workers}x{_name_worker(fields, role, gpu_count // workers)}")
    return "-".join(sides)


def _name_worker(fields: Fields, role: str, gpus: int) -> str:
    """The short name of one worker; the rows write an attention-DP width as tp, as ep or as neither."""
    experts = (fields.whole(f"{role}ep", zero=True) or 1) > 1
    if fields.flag(f"{role}dp_attention"):
        return f"DEP{gpus}" if experts else f"DP{gpus}"
    return f"TEP{gpus}" if experts else f"TP{gpus}"
