"""The public InferenceX rows (JSON) as points, in every form they have had.

    the site's rows       `hardware`, `spec_method`, `prefill_*`, `decode_*`, and the figures in `metrics`
    second generation     `agg_*.json` since December 2025: `hw`, `spec_decoding`, the figures beside them;
                          `tp`/`ep` on one node, `prefill_*`/`decode_*` over several
    first generation      before: `tp`/`ep` for all, `mtp` on or off (of some), no ISL, OSL, image
A file is a list of rows (agg_bmk.json), or one of them. AgentX rows (`scenario_type`) have no fixed lengths
and are listed. Rows whose figures contradict each other are kept as invalid points, with the reason.

GPU counts, the trap of these rows. Every rate is per GPU, so the counts are checked against them:
    aggregated        `num_prefill_gpu` and `num_decode_gpu` describe the same GPUs, and hold tp × ep where
                      both are set (64 on one 8-GPU node); the GPUs are `prefill_tp`.
                      Little's law (concurrency × tokens / latency) confirms it.
      over nodes      `num_decode_gpu` is 0, and `num_prefill_gpu` holds all of them.
    disaggregated     with worker counts: the GPUs are num_prefill_gpu + num_decode_gpu; and
                      (input × prefill + output × decode) / (prefill + decode) = tput_per_gpu.
    disaggregated,    with worker counts of 0 (first schema): both fields hold the total, and the split
    first schema      that is not recorded follows from the same equation.
    `tp` in the row   (what process_result.py wrote, before the site's mapper): tp × pp × pcp_size, where the
                      first generation's tp is the total of a disaggregated deployment too.
    pp, pcp_size      of a role count wherever tp does; dcp_size shares the GPUs of tp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused
from mtpbench_analysis.importers import names
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import describe, join_reasons, read_json
from mtpbench_analysis.importers.fields import Fields, UnusableError, as_number, check_finite, show

RATE_TOLERANCE = 0.01
"""How far a row's three rates can contradict its GPU counts (they agree to 1e-3 where they agree)."""
_LITTLE_FACTOR = 2.0
"""How far concurrency and latency can contradict the output rate (0.99 to 1.14 in sound rows)."""
_UNITS_FACTOR = 3.0
"""How far a latency built from medians can lie from the stated one; a wrong unit is 1000."""
_MEAN_LENGTH = 0.9
"""The rows' request lengths are uniform in [0.8 L, L]."""


def is_row(value: object) -> bool:
    """Returns whether a JSON value looks like an InferenceX row of any generation."""
    if not isinstance(value, dict):
        return False
    nested = isinstance(value.get("metrics"), dict) and {"spec_method", "framework", "conc"} & value.keys()
    flat = "tput_per_gpu" in value and {"hw", "conc"} <= value.keys()
    return bool(nested) or flat or is_agentic(value)


def is_agentic(row: Mapping[str, Any]) -> bool:
    """Returns whether a row is of AgentX traces, whose requests have no fixed lengths."""
    return "scenario_type" in row and ("request_metrics" in row or "hw" in row)


def read_rows(path: Path, declared: Declared | None = None) -> PointSet:
    """Returns the points of InferenceX rows; a row that can't become one is in `unused`.

    Args:
        path: a JSON list of rows, or a single row.
        declared: what rows that do not say it are taken to be (arm, ISL and OSL of the first generation).

    Raises:
        ImportFileError: the file is not JSON, not InferenceX rows, or no row of it can be used.
    """
    document = read_json(path)
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
    """Returns one row as a point.

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
    reasons += tuple(reason for reason in (_check_counts(fields), _check_order(metrics)) if reason)
    per_input, per_output = metrics.known("input_tput_per_gpu"), metrics.known("output_tput_per_gpu")
    run_url, date = fields.text("run_url"), fields.text("date")
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
        engine=names.engine_of(fields.text("framework")) or declared.engine,
        version=declared.version,
        image=names.image_of(fields.text("image")) or declared.image,
        serving=_SERVING[gpus.disaggregated] or declared.serving_mode,
        hardware=_read_hardware(fields) or declared.hardware,
        precision=names.precision_of(fields.text("precision")) or declared.precision,
        model=fields.text("infmax_model_prefix") or fields.text("model") or declared.model,
        isl=fields.whole("isl") or declared.isl,
        osl=osl,
        date=date,
        method=said if (said := names.read_method(fields)) in names.METHODS else declared.method,
        checkpoint=declared.checkpoint,
        draft_tokens=declared.draft_tokens,
        acceptance_mode="off" if arm == "off" else declared.acceptance_mode,
        power_w_per_gpu=None if row.get("power_valid") == 0 else metrics.known("avg_power_w"),
        ttft_p50_s=metrics.known("median_ttft"),
        ttft_p99_s=metrics.known("p99_ttft"),
        e2el_p50_s=metrics.known("median_e2el"),
        source=f"{source} {run_url}" if run_url else source,
        run_url=run_url,
        # No server outlives the run of a workflow, nor a day.
        start=run_url or date,
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
    said = names.read_method(fields)
    if said is not None:
        return said
    if declared.arm is None:
        raise UnusableError(
            "spec_method, spec_decoding and mtp are missing: --arm names the side it belongs to"
        )
    return declared.arm


def _read_hardware(fields: Fields) -> str | None:
    """Returns `hardware`, or the GPU in the runner's name; both of a mixed deployment."""
    roles = [names.gpu_of(fields.text(name)) for name in ("prefill_hw", "decode_hw")]
    if all(roles) and roles[0] != roles[1]:
        return f"{roles[0]}+{roles[1]}"
    return fields.text("hardware") or names.gpu_of(fields.text("hw"))


def _name_topology(fields: Fields, gpus: Gpus) -> str:
    workers = [_ranks(fields, f"{role}num_workers") for role in ("prefill_", "decode_")]
    whole = gpus.prefill % workers[0] == gpus.decode % workers[1] == 0
    if gpus.disaggregated and not (whole and gpus.recorded_split and "prefill_tp" in fields.values):
        return f"{gpus.prefill}P+{gpus.decode}D"
    if not gpus.disaggregated:
        role = "prefill_" if "prefill_tp" in fields.values else ""
        count = workers[0] if fields.flag("is_multinode") and gpus.total % workers[0] == 0 else 1
        return f"{count}x{_name_worker(fields, role, gpus.total // count)}"
    prefill = _name_worker(fields, "prefill_", gpus.prefill // workers[0])
    return f"{workers[0]}x{prefill}-{workers[1]}x{_name_worker(fields, 'decode_', gpus.decode // workers[1])}"


def _name_worker(fields: Fields, role: str, gpus: int) -> str:
    """Returns the short name of one worker; rows write an attention-DP width as tp, as ep or as neither."""
    return names.name_worker(
        gpus,
        experts=_ranks(fields, f"{role}ep") > 1,
        attention_dp=fields.flag(f"{role}dp_attention") or False,
        pp=_ranks(fields, f"{role}pp"),
        pcp=_ranks(fields, f"{role}pcp_size"),
        dcp=_ranks(fields, f"{role}dcp_size"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """The GPUs of a row: prefill and decode are the same ones where it is aggregated.

    Args:
        disaggregated: None where the row does not say and its rates can't tell.
        recorded_split: whether the row says which GPUs prefill and which decode.
    """

    prefill: int
    decode: int
    total: int
    disaggregated: bool | None
    recorded_split: bool = True


def count_gpus(row: Mapping[str, Any]) -> Gpus:
    """Returns the GPUs of a row by the rule at the head of this module.

    Raises:
        UnusableError: a count is missing, or the rates of a disaggregated row give no whole split.
    """
    fields = Fields(row, "")
    nested = row.get("metrics")
    metrics = Fields(nested if isinstance(nested, dict) else row, "")
    disaggregated = fields.flag("disagg")
    if "tp" in row and "prefill_tp" not in row:
        return _count_flat(fields, metrics, disaggregated)
    if disaggregated is None:
        raise UnusableError("disagg is missing")
    if not disaggregated:
        over_nodes = fields.values.get("num_decode_gpu") == 0
        return _one_pool(fields.count("num_prefill_gpu") if over_nodes else _width(fields, "prefill_"), False)
    prefill, decode = fields.count("num_prefill_gpu"), fields.count("num_decode_gpu")
    if fields.whole("prefill_num_workers", zero=True) or fields.whole("decode_num_workers", zero=True):
        return Gpus(prefill=prefill, decode=decode, total=prefill + decode, disaggregated=True)
    return _split_by_rates(metrics, prefill)


def _width(fields: Fields, role: str) -> int:
    """Returns the GPUs of one worker; decode context parallelism is free: it shares those of tp."""
    return fields.count(f"{role}tp") * _ranks(fields, f"{role}pp") * _ranks(fields, f"{role}pcp_size")


def _ranks(fields: Fields, name: str) -> int:
    """Returns a number of ranks or workers; rows leave out what is not used, or write 0."""
    return fields.count(name) if fields.values.get(name) else 1


def _check_counts(fields: Fields) -> str | None:
    """Checks the GPUs of each role, where the row says how they are made: pipeline stages count."""
    for role, counted in (("prefill_", "num_prefill_gpu"), ("decode_", "num_decode_gpu")):
        parallel = [fields.values.get(f"{role}{name}") for name in ("pp", "pcp_size")]
        workers = fields.whole(f"{role}num_workers", zero=True)
        if not workers or not any((as_number(size) or 1) > 1 for size in parallel):
            continue
        made = workers * _width(fields, role)
        if fields.values.get(counted) != made:
            stated = show(fields.values.get(counted))
            return f"{counted} is {stated}, but {workers} workers of tp × pp × pcp_size GPUs have {made}"
    return None


def _count_flat(fields: Fields, metrics: Fields, disaggregated: bool | None) -> Gpus:
    total = _width(fields, "")
    if disaggregated and fields.values.get("num_decode_gpu"):
        prefill, decode = fields.count("num_prefill_gpu"), fields.count("num_decode_gpu")
        if prefill + decode != total:
            raise UnusableError(
                f"tp {total} should be all GPUs of a disaggregated row, but num_prefill_gpu {prefill} and "
                f"num_decode_gpu {decode} make {prefill + decode}"
            )
        return Gpus(prefill=prefill, decode=decode, total=total, disaggregated=True)
    if disaggregated is False:
        return _one_pool(total, False)
    # The first rows do not say: input and output over the same GPUs add up, over two pools they do not.
    rates = [metrics.known(f"{name}tput_per_gpu") for name in ("input_", "output_", "")]
    if rates[0] is None or rates[1] is None or rates[2] is None:
        return _one_pool(total, None)
    if not disaggregated and abs(rates[0] + rates[1] - rates[2]) <= RATE_TOLERANCE * rates[2]:
        return _one_pool(total, False)
    return _split_by_rates(metrics, total)


def _one_pool(total: int, disaggregated: bool | None) -> Gpus:
    return Gpus(prefill=total, decode=total, total=total, disaggregated=disaggregated)


def _split_by_rates(metrics: Fields, total: int) -> Gpus:
    per_prefill, per_decode = metrics.positive("input_tput_per_gpu"), metrics.positive("output_tput_per_gpu")
    if per_prefill == per_decode:
        raise UnusableError(
            "the split of prefill and decode GPUs is not recorded and can't be told from the rates"
        )
    split = total * (metrics.positive("tput_per_gpu") - per_decode) / (per_prefill - per_decode)
    if not abs(split) < total or abs(split - round(split)) > 0.05 or not 0 < round(split) < total:
        raise UnusableError(f"{total} GPUs, of which the rates say {split:.2f} prefill: no whole split")
    return Gpus(
        prefill=round(split),
        decode=total - round(split),
        total=total,
        disaggregated=True,
        recorded_split=False,
    )


def total_rate(prefill: tuple[float, int], decode: tuple[float, int], gpus: int) -> float:
    """Returns the throughput over all GPUs of a deployment, from the rates of each role over its own.

    Args:
        prefill: (input tok/s per prefill GPU, prefill GPUs).
        decode: (output tok/s per decode GPU, decode GPUs).
        gpus: GPUs of the deployment: the sum, or the same GPUs where one pool does both.
    """
    return (prefill[0] * prefill[1] + decode[0] * decode[1]) / gpus


def find_contradictions(metrics: Fields, gpus: Gpus, conc: int, osl: int | None) -> tuple[str, ...]:
    """Returns what the rates of a row contradict: its GPU counts, its TPOT, or its latencies."""
    reasons = (
        _check_rates(metrics, gpus),
        _check_tpot(metrics),
        _check_units(metrics, osl),
        _check_latency(metrics, gpus, conc, osl),
    )
    return tuple(reason for reason in reasons if reason)


def _check_rates(metrics: Fields, gpus: Gpus) -> str | None:
    per_input, per_output = metrics.known("input_tput_per_gpu"), metrics.known("output_tput_per_gpu")
    if per_input is None or per_output is None:
        return None
    expected = total_rate((per_input, gpus.prefill), (per_output, gpus.decode), gpus.total)
    stated = metrics.positive("tput_per_gpu")
    if abs(expected - stated) <= RATE_TOLERANCE * stated:
        return None
    return (
        f"rates contradict GPU counts: {stated:.1f} tok/s/GPU stated, {expected:.1f} from input and output "
        f"rates over {gpus.prefill} prefill and {gpus.decode} decode GPUs"
    )


def _check_tpot(metrics: Fields) -> str | None:
    tpot, speed = metrics.known("median_tpot"), metrics.known("median_intvty")
    if tpot is None or speed is None or abs(tpot * speed - 1) <= RATE_TOLERANCE:
        return None
    return (
        f"median_intvty {speed:.4g} contradicts median_tpot {tpot:.4g} s, which makes {1 / tpot:.4g} "
        "tok/s/user"
    )


def _check_order(metrics: Fields) -> str | None:
    """Checks that p99 is not below the median, and that TTFT is part of the latency."""
    names = [(f"median_{name}", f"p99_{name}") for name in ("ttft", "tpot", "itl", "e2el")]
    for lower, upper in (*names, *((f"{stat}_ttft", f"{stat}_e2el") for stat in ("mean", "median", "p99"))):
        least, most = as_number(metrics.values.get(lower)), as_number(metrics.values.get(upper))
        if least and most and least > most * (1 + 1e-6):
            return f"{lower} {least:.4g} s is above {upper} {most:.4g} s"
    return None


def _check_units(metrics: Fields, osl: int | None) -> str | None:
    """Checks the latency that the medians make against the stated one: a time in another unit is far off."""
    tpot, ttft, stated = (metrics.known(f"median_{name}") for name in ("tpot", "ttft", "e2el"))
    if tpot is None or ttft is None or stated is None or osl is None:
        return None
    built = ttft + tpot * _MEAN_LENGTH * osl
    if 1 / _UNITS_FACTOR < built / stated < _UNITS_FACTOR:
        return None
    return (
        f"mixed units: median_ttft {ttft:.4g} s and median_tpot {tpot:.4g} s make a latency of {built:.4g} "
        f"s, but median_e2el is {stated:.4g} s"
    )


def _check_latency(metrics: Fields, gpus: Gpus, conc: int, osl: int | None) -> str | None:
    """Checks the stated output rate against concurrency and mean latency by Little's law."""
    output, latency = metrics.known("output_tput_per_gpu"), metrics.known("mean_e2el")
    if output is None or latency is None or osl is None:
        return None
    implied = conc * _MEAN_LENGTH * osl / latency / gpus.decode
    if 1 / _LITTLE_FACTOR < implied / output < _LITTLE_FACTOR:
        return None
    return (
        f"rate contradicts latency: {output:.1f} output tok/s per decode GPU stated, {implied:.1f} from "
        f"{conc} requests in flight at {latency:.1f} s each (Little's law)"
    )
