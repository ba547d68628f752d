"""How many GPUs an InferenceX row ran on, and whether its own figures agree.

GPU counts, the trap of these rows. Every rate is per GPU, so the counts are checked against them:
    aggregated        `num_prefill_gpu` and `num_decode_gpu` describe the same GPUs, and hold tp × ep where
                      both are set (64 on one 8-GPU node); the GPUs are `prefill_tp`.
                      Little's law (concurrency × tokens / latency) confirms it.
    aggregated over   `num_decode_gpu` is 0, and `num_prefill_gpu` holds all of them.
    nodes
    disaggregated     with worker counts: the GPUs are num_prefill_gpu + num_decode_gpu; and
                      (input × prefill + output × decode) / (prefill + decode) = tput_per_gpu.
    disaggregated,    with worker counts of 0 (first schema): both fields hold the total, and the split
    first schema      that is not recorded follows from the same equation.
    `tp` in the row   (what process_result.py wrote, before the site's mapper): tp × pp × pcp_size, where the
                      first generation's tp is the total of a disaggregated deployment too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtpbench_analysis.importers.fields import Fields, UnusableError

RATE_TOLERANCE = 0.01
"""How far a row's three rates can contradict its GPU counts (they agree to 1e-3 where they agree)."""

_LITTLE_FACTOR = 2.0
"""How far concurrency and latency can contradict the output rate (0.99 to 1.14 in sound rows)."""

_UNITS_FACTOR = 3.0
"""How far a latency built from medians can lie from the stated one; a wrong unit is 1000."""

_MEAN_LENGTH = 0.9
"""The rows' request lengths are uniform in [0.8 L, L]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """GPUs of a row: prefill and decode are the same ones where it is aggregated.

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
    """The GPUs of a row by the rule at the head of this module.

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
        return _one_pool(fields.count("num_prefill_gpu" if over_nodes else "prefill_tp"), False)
    prefill, decode = fields.count("num_prefill_gpu"), fields.count("num_decode_gpu")
    if fields.whole("prefill_num_workers", zero=True) or fields.whole("decode_num_workers", zero=True):
        return Gpus(prefill=prefill, decode=decode, total=prefill + decode, disaggregated=True)
    return _split_by_rates(metrics, prefill)


def _count_flat(fields: Fields, metrics: Fields, disaggregated: bool | None) -> Gpus:
    total = fields.count("tp")
    for name in ("pp", "pcp_size"):
        total *= fields.whole(name) or 1
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
    """Throughput over all GPUs of a deployment, from the rates that each role states over its own.

    Args:
        prefill: (input tok/s per prefill GPU, prefill GPUs).
        decode: (output tok/s per decode GPU, decode GPUs).
        gpus: GPUs of the deployment: the sum, or the same GPUs where one pool does both.
    """
    return (prefill[0] * prefill[1] + decode[0] * decode[1]) / gpus


def find_contradictions(metrics: Fields, gpus: Gpus, conc: int, osl: int | None) -> tuple[str, ...]:
    """What the rates of a row contradict: its GPU counts, its TPOT, or its latencies."""
    found = (
        _check_rates(metrics, gpus),
        _check_tpot(metrics),
        _check_units(metrics, osl),
        _check_latency(metrics, gpus, conc, osl),
    )
    return tuple(reason for reason in found if reason)


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


def _check_units(metrics: Fields, osl: int | None) -> str | None:
    """The medians' own latency against the stated one; they are near, but for a time in another unit."""
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
    """Little's law: the output rate that concurrency and mean latency imply, against the stated one."""
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
