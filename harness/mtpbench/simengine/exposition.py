"""A worker's counters and gauges as Prometheus text, under vLLM's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mtpbench.simengine.pump import Pump
from mtpbench.simengine.timings import HISTOGRAMS, Timings

_COUNTERS = {
    "vllm:prompt_tokens": "Number of prefill tokens processed.",
    "vllm:generation_tokens": "Number of generation tokens processed.",
    "vllm:num_preemptions": "Cumulative number of preemption from the engine.",
    "vllm:spec_decode_num_drafts": "Number of spec decoding drafts.",
    "vllm:spec_decode_num_draft_tokens": "Number of draft tokens.",
    "vllm:spec_decode_num_accepted_tokens": "Number of accepted tokens.",
    "vllm:spec_decode_num_accepted_tokens_per_pos": "Accepted tokens per draft position.",
    "mtpbench_sim_gpu_energy_joules": "Simulated energy of one GPU since the engine started.",
    "mtpbench_sim_steps": "Steps that ended.",
    "mtpbench_sim_step_late_seconds": "Real seconds by which steps ended later than they were due.",
    "mtpbench_sim_step_delivery_seconds": "Real seconds that the events of steps took into their sockets.",
}
_GAUGES = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "mtpbench_sim_gpu_power_watts": "Simulated power of one GPU, mean since the last reading.",
    "mtpbench_sim_step_late_seconds_max": "Largest real lateness of a step since the timings were reset.",
    "mtpbench_sim_step_delivery_seconds_max": "Longest delivery of a step since the timings were reset.",
}
Counters = Mapping[tuple[str, str], float]
"""Values by (name, the label that tells series of one name apart)."""


def read_counters(pump: Pump, gpus: int, timings: Timings) -> dict[tuple[str, str], float]:
    """Every counter; the speculation ones are missing where speculation is off.

    Histograms count as two counters each, by the names of their samples.
    """
    worker, now_s = pump.worker, pump.clock.now_s()
    values: dict[tuple[str, str], float] = {
        ("vllm:prompt_tokens", ""): worker.totals.prompt_tokens,
        ("vllm:generation_tokens", ""): worker.generation_tokens,
        ("vllm:num_preemptions", ""): worker.totals.preemptions,
        ("mtpbench_sim_steps", ""): pump.lateness.steps,
        ("mtpbench_sim_step_late_seconds", ""): pump.lateness.late_s,
        ("mtpbench_sim_step_delivery_seconds", ""): pump.lateness.delivery_s,
    }
    if (spec := worker.counters()) and spec.drafts is not None:
        values["vllm:spec_decode_num_drafts", ""] = spec.drafts
        values["vllm:spec_decode_num_draft_tokens", ""] = spec.draft_tokens
        values["vllm:spec_decode_num_accepted_tokens", ""] = spec.accepted_tokens
        for i, count in enumerate(spec.per_position):
            values["vllm:spec_decode_num_accepted_tokens_per_pos", f'position="{i}"'] = count
    energy_j = worker.energy_j(now_s)
    for gpu in range(gpus):
        values["mtpbench_sim_gpu_energy_joules", f'gpu="{gpu}"'] = energy_j
    for name, (count, seconds) in timings.sums.items():
        values[f"{name}_count", ""], values[f"{name}_sum", ""] = count, seconds
    return values


def read_gauges(pump: Pump, gpus: int) -> dict[tuple[str, str], float]:
    """Every gauge."""
    worker = pump.worker
    values: dict[tuple[str, str], float] = {
        ("vllm:num_requests_running", ""): worker.running,
        ("vllm:num_requests_waiting", ""): worker.waiting,
        ("mtpbench_sim_step_late_seconds_max", ""): pump.recent.late_max_s,
        ("mtpbench_sim_step_delivery_seconds_max", ""): pump.recent.delivery_max_s,
    }
    power_w = pump.power_w()
    for gpu in range(gpus):
        values["mtpbench_sim_gpu_power_watts", f'gpu="{gpu}"'] = power_w
    return values


def render(pump: Pump, gpus: int, timings: Timings, model: str, baseline: Counters) -> str:
    """The text of /metrics; `baseline` is taken off the counters (a reset that was played)."""
    lines: list[str] = []
    values = read_counters(pump, gpus, timings)
    counted = {key: value - baseline.get(key, 0.0) for key, value in values.items()}
    for kind, helps, values in (("gauge", _GAUGES, read_gauges(pump, gpus)), ("counter", _COUNTERS, counted)):
        for name, text in helps.items():
            series = [(label, value) for (of, label), value in values.items() if of == name]
            if not series:
                continue
            full = f"{name}_total" if kind == "counter" else name
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
            for label, value in series:
                engine = _engine(model) if name.startswith("vllm:") else ""
                labels = ",".join(part for part in (engine, label) if part)
                lines.append(f"{full}{{{labels}}} {float(value)!r}" if labels else f"{full} {float(value)!r}")
    lines += render_histograms(lambda sample: counted[sample, ""], model)
    return "\n".join(lines) + "\n"


def render_histograms(read: Callable[[str], float], model: str) -> list[str]:
    """The lines of the timings' histograms, each of one bucket: sum and count are what there is."""
    lines: list[str] = []
    for name, text in HISTOGRAMS.items():
        count, labels = float(read(f"{name}_count")), _engine(model)
        lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{{labels},le="+Inf"}} {count!r}', f"{name}_count{{{labels}}} {count!r}"]
        lines.append(f"{name}_sum{{{labels}}} {float(read(f'{name}_sum'))!r}")
    return lines


def _engine(model: str) -> str:
    return f'engine="0",model_name="{model}"'
