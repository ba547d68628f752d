"""Pure: speculation counters and gauges, and the simulated power of GPUs, out of Prometheus text."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from mtpbench.records import SpecCounters, SpecGauge

POWER = "mtpbench_sim_gpu_power_watts"
ENERGY = "mtpbench_sim_gpu_energy_joules_total"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuPower:
    """Power and energy counter of one simulated GPU; NULL where its process does not say."""

    gpu: int
    power_w: float | None
    energy_j: float | None


def spec_counters(metrics_text: str, prefix: str) -> SpecCounters | None:
    """The four `<prefix>spec_decode_*` counters as vLLM names them; None where they are absent.

    Args:
        metrics_text: the body of /metrics.
        prefix: `vllm:`, `llamacpp:` or `trtllm_` (which lacks the count of steps).

    Raises:
        ValueError: the text is not Prometheus's exposition format.
    """
    sums: dict[str, float] = defaultdict(float)
    positions: dict[int, float] = defaultdict(float)
    start = f"{prefix}spec_decode_num_"
    # Of an engine's long text only these lines are parsed: the scraper shares the client's event loop.
    lines = [line for line in metrics_text.splitlines() if line.startswith(start)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            name = sample.name.removeprefix(start)
            if name == "accepted_tokens_per_pos_total":
                positions[int(sample.labels["position"])] += sample.value
            else:
                sums[name] += sample.value
    if not {"draft_tokens_total", "accepted_tokens_total"} <= set(sums):
        return None
    return SpecCounters(
        drafts=sums.get("drafts_total"),
        draft_tokens=sums["draft_tokens_total"],
        accepted_tokens=sums["accepted_tokens_total"],
        per_position=tuple(positions[i] for i in range(1 + max(positions, default=-1))),
    )


def spec_gauges(metrics_text: str, length: str, verify_calls: str) -> tuple[SpecGauge, ...] | None:
    """A gauge of the acceptance length by label set (rank), with the counter that weighs it; None if absent.

    Args:
        metrics_text: the body of /metrics.
        length: name of the gauge.
        verify_calls: name of the counter of verification steps.

    Raises:
        ValueError: the text is not Prometheus's exposition format.
    """
    lines = [line for line in metrics_text.splitlines() if line.startswith((length, verify_calls))]
    lengths: dict[str, float] = {}
    calls: dict[str, float] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            rank = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if sample.name == length:
                lengths[rank] = sample.value
            elif sample.name == verify_calls:
                calls[rank] = sample.value
    if not lengths:
        return None
    return tuple(
        SpecGauge(rank=rank, length=value, verify_calls=calls.get(rank)) for rank, value in lengths.items()
    )


def simulated_power(metrics_text: str) -> list[GpuPower]:
    """The power and energy of every GPU that a process of the embedded engine reports, ordered by index.

    Raises:
        ValueError: the text is not Prometheus's exposition format.
    """
    # Of an engine's long text only these lines are parsed: the scraper shares the client's event loop.
    lines = [line for line in metrics_text.splitlines() if "mtpbench_sim_gpu_" in line]
    power: dict[int, float] = {}
    energy: dict[int, float] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == POWER:
                power[int(sample.labels["gpu"])] = sample.value
            elif sample.name == ENERGY:
                energy[int(sample.labels["gpu"])] = sample.value
    gpus = sorted(power | energy)
    return [GpuPower(gpu=gpu, power_w=power.get(gpu), energy_j=energy.get(gpu)) for gpu in gpus]
