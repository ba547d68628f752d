"""The public InferenceX rows (JSON) as points.

GPU counts, the trap of these rows. Every rate is per GPU, so the counts are checked against them:
    aggregated        `num_prefill_gpu` and `num_decode_gpu` describe the same GPUs, and hold tp × ep where
                      both are set (64 on one 8-GPU node); the GPUs are `prefill_tp`.
                      Little's law (concurrency × tokens / latency) confirms it.
    disaggregated     with worker counts: the GPUs are num_prefill_gpu + num_decode_gpu; and
                      (input × prefill + output × decode) / (prefill + decode) = tput_per_gpu.
    disaggregated,    with worker counts of 0 (first schema): both fields hold the total, and the split
    first schema      that is not recorded follows from the same equation.
Rows whose rates contradict their counts or latencies are kept as invalid points, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused

_RATE_TOLERANCE = 0.01
"""How far a row's three rates can contradict its GPU counts (they agree to 1e-3 where they agree)."""

_LITTLE_FACTOR = 2.0
"""How far concurrency and latency can contradict the output rate (0.99 to 1.14 in sound rows)."""

_MEAN_LENGTH = 0.9
"""The rows' request lengths are uniform in [0.8 L, L]."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gpus:
    """GPUs of a row: prefill and decode are the same ones where it is aggregated."""

    prefill: int
    decode: int
    total: int
    recorded_split: bool


def read_rows(path: Path) -> PointSet:
    """The points of a JSON list of InferenceX rows; a row that can't become one is in `unused`.

    Raises:
        ImportFileError: the file is not JSON, not a list of rows, or no row of it can be used.
    """
    rows = _load(path)
    points: list[CurvePoint] = []
    unused: list[Unused] = []
    for number, row in enumerate(rows):
        what = f"{path.name}[{number}]"
        try:
            points.append(to_curve_point(row, what))
        except KeyError as error:
            unused.append(Unused(what=what, reason=f"{error.args[0]} is missing"))
        except (TypeError, ValueError) as error:
            unused.append(Unused(what=what, reason=str(error)))
    if not points:
        why = f" ({unused[0].what}: {unused[0].reason})" if unused else ""
        raise ImportFileError(f"{path}: none of its {len(rows)} rows can be used{why}")
    return PointSet(sources=(str(path),), points=tuple(points), unused=tuple(unused))


def to_curve_point(row: Row, source: str) -> CurvePoint:
    """One row as a point.

    Raises:
        KeyError: a field is missing.
        TypeError: a field has another type.
        ValueError: a rate is not positive, or the GPU split can't be told.
    """
    metrics: Row = row["metrics"]
    interactivity, tput = float(metrics["median_intvty"]), float(metrics["tput_per_gpu"])
    if interactivity <= 0 or tput <= 0:
        raise ValueError(f"median_intvty {interactivity:g} and tput_per_gpu {tput:g} must be above 0")
    gpus = count_gpus(row)
    output = metrics.get("output_tput_per_gpu")
    reasons = tuple(reason for reason in (_rates(row, gpus), _little(row, gpus)) if reason)
    speculates = row["spec_method"] != "none"
    return CurvePoint(
        arm=row["spec_method"] if speculates else "off",
        interactivity_tps=interactivity,
        tput_tps_per_gpu=tput,
        output_tps_per_gpu=None if output is None else output * gpus.decode / gpus.total,
        concurrency=int(row["conc"]),
        gpus=gpus.total,
        topology=_topology(row, gpus),
        engine=row["framework"],
        image=row["image"],
        serving="disaggregated" if row["disagg"] else "aggregated",
        hardware=row["hardware"],
        precision=row["precision"],
        model=row["model"],
        isl=int(row["isl"]),
        osl=int(row["osl"]),
        date=row["date"],
        acceptance_mode=None if speculates else "off",
        power_w_per_gpu=metrics.get("avg_power_w"),
        ttft_p50_s=metrics.get("median_ttft"),
        e2el_p50_s=metrics.get("median_e2el"),
        source=f"{source} {row['run_url']}" if row.get("run_url") else source,
        valid=not reasons,
        reasons=reasons,
    )


def count_gpus(row: Row) -> _Gpus:
    """The GPUs of a row by the rule at the head of this module.

    Raises:
        ValueError: a first-schema disaggregated row whose rates give no whole split.
    """
    prefill, decode = int(row["num_prefill_gpu"]), int(row["num_decode_gpu"])
    if not row["disagg"]:
        total = int(row["prefill_tp"])
        return _Gpus(prefill=total, decode=total, total=total, recorded_split=True)
    if row["prefill_num_workers"] or row["decode_num_workers"]:
        return _Gpus(prefill=prefill, decode=decode, total=prefill + decode, recorded_split=True)
    metrics = row["metrics"]
    per_prefill, per_decode = metrics["input_tput_per_gpu"], metrics["output_tput_per_gpu"]
    if per_prefill == per_decode:
        raise ValueError(
            "the split of prefill and decode GPUs is not recorded and can't be told from the rates"
        )
    split = prefill * (metrics["tput_per_gpu"] - per_decode) / (per_prefill - per_decode)
    if abs(split - round(split)) > 0.05 or not 0 < round(split) < prefill:
        raise ValueError(f"{prefill} GPUs, of which the rates say {split:.2f} prefill: no whole split")
    return _Gpus(prefill=round(split), decode=prefill - round(split), total=prefill, recorded_split=False)


def total_rate(prefill: tuple[float, int], decode: tuple[float, int], gpus: int) -> float:
    """Throughput over all GPUs of a deployment, from the rates that each role states over its own.

    Args:
        prefill: (input tok/s per prefill GPU, prefill GPUs).
        decode: (output tok/s per decode GPU, decode GPUs).
        gpus: GPUs of the deployment: the sum, or the same GPUs where one pool does both.
    """
    return (prefill[0] * prefill[1] + decode[0] * decode[1]) / gpus


def _rates(row: Row, gpus: _Gpus) -> str | None:
    metrics = row["metrics"]
    per_input, per_output = metrics.get("input_tput_per_gpu"), metrics.get("output_tput_per_gpu")
    if per_input is None or per_output is None:
        return None
    expected = total_rate((per_input, gpus.prefill), (per_output, gpus.decode), gpus.total)
    stated = metrics["tput_per_gpu"]
    if abs(expected - stated) <= _RATE_TOLERANCE * stated:
        return None
    return (
        f"rates contradict GPU counts: {stated:.1f} tok/s/GPU stated, {expected:.1f} from input and output "
        f"rates over {gpus.prefill} prefill and {gpus.decode} decode GPUs"
    )


def _little(row: Row, gpus: _Gpus) -> str | None:
    """Little's law: the output rate that concurrency and mean latency imply, against the stated one."""
    metrics = row["metrics"]
    output, latency = metrics.get("output_tput_per_gpu"), metrics.get("mean_e2el")
    if output is None or not latency:
        return None
    implied = row["conc"] * _MEAN_LENGTH * row["osl"] / latency / gpus.decode
    if 1 / _LITTLE_FACTOR < implied / output < _LITTLE_FACTOR:
        return None
    return (
        f"rate contradicts latency: {output:.1f} output tok/s per decode GPU stated, {implied:.1f} from "
        f"{row['conc']} requests in flight at {latency:.1f} s each (Little's law)"
    )


def _topology(row: Row, gpus: _Gpus) -> str:
    if row["disagg"] and not gpus.recorded_split:
        return f"{gpus.prefill}P+{gpus.decode}D"
    if not row["disagg"]:
        return f"1x{_layout(row, 'prefill', gpus.total)}"
    sides = []
    for role, count in (("prefill", gpus.prefill), ("decode", gpus.decode)):
        workers = int(row[f"{role}_num_workers"]) or 1
        sides.append(f"{workers}x{_layout(row, role, count // workers)}")
    return "-".join(sides)


def _layout(row: Row, role: str, worker_gpus: int) -> str:
    """The short name of one worker; the rows write an attention-DP width as tp, as ep or as neither."""
    if row[f"{role}_dp_attention"]:
        ep = int(row[f"{role}_ep"])
        return f"DEP{worker_gpus}" if ep > 1 else f"DP{worker_gpus}"
    return f"TEP{worker_gpus}" if int(row[f"{role}_ep"]) > 1 else f"TP{worker_gpus}"


def _load(path: Path) -> list[Row]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ImportFileError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ImportFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ImportFileError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ImportFileError(f"{path}: a list of InferenceX rows (objects with `metrics`) is needed")
    return data
