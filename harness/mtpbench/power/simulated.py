"""Pure: the embedded engine's simulated power, out of its /metrics text."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

POWER = "mtpbench_sim_gpu_power_watts"
ENERGY = "mtpbench_sim_gpu_energy_joules_total"

Reading = tuple[int, float | None, float | None]
"""GPU index, power in watts, energy counter in joules; NULL where the source has none."""


def readings(metrics_text: str) -> list[Reading]:
    """Power and energy of every GPU that one process reports, ordered by index; empty where it has none.

    Raises:
        ValueError: the text is not Prometheus's exposition format.
    """
    # Of an engine's long text only these lines are parsed: the sampler shares the client's event loop.
    lines = [line for line in metrics_text.splitlines() if "mtpbench_sim_gpu_" in line]
    power: dict[int, float] = {}
    energy: dict[int, float] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == POWER:
                power[int(sample.labels["gpu"])] = sample.value
            elif sample.name == ENERGY:
                energy[int(sample.labels["gpu"])] = sample.value
    return [(gpu, power.get(gpu), energy.get(gpu)) for gpu in sorted(power | energy)]
