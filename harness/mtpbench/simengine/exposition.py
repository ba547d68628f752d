"""A worker's counters and gauges as Prometheus text, under vLLM's names."""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.simengine.pump import Pump

_COUNTERS = {
    "vllm:prompt_tokens": "Number of prefill tokens processed.",
    "vllm:generation_tokens": "Number of generation tokens processed.",
    "vllm:num_preemptions": "Cumulative number of preemption from the engine.",
    "vllm:spec_decode_num_drafts": "Number of spec decoding drafts.",
    "vllm:spec_decode_num_draft_tokens": "Number of draft tokens.",
    "vllm:spec_decode_num_accepted_tokens": "Number of accepted tokens.",
    "vllm:spec_decode_num_accepted_tokens_per_pos": "Accepted tokens per draft position.",
    "mtpbench_sim_gpu_energy_joules": "Simulated energy of one GPU since the engine started.",
}
_GAUGES = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "mtpbench_sim_gpu_power_watts": "Simulated power of one GPU, mean since the last reading.",
}
Counters = Mapping[tuple[str, str], float]
"""Values by (name, the label that tells series of one name apart)."""


def read_counters(pump: Pump, gpus: int) -> dict[tuple[str, str], float]:
    """Every counter; the speculation ones are missing where speculation is off."""
    worker, now_s = pump.worker, pump.clock.now_s()
    values: dict[tuple[str, str], float] = {
        ("vllm:prompt_tokens", ""): worker.totals.prompt_tokens,
        ("vllm:generation_tokens", ""): worker.generation_tokens,
        ("vllm:num_preemptions", ""): worker.totals.preemptions,
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
    return values


def read_gauges(pump: Pump, gpus: int) -> dict[tuple[str, str], float]:
    """Every gauge."""
    worker = pump.worker
    values: dict[tuple[str, str], float] = {
        ("vllm:num_requests_running", ""): worker.running,
        ("vllm:num_requests_waiting", ""): worker.waiting,
    }
    power_w = pump.power_w()
    for gpu in range(gpus):
        values["mtpbench_sim_gpu_power_watts", f'gpu="{gpu}"'] = power_w
    return values


def render(pump: Pump, gpus: int, model: str, baseline: Counters) -> str:
    """The text of /metrics; `baseline` is taken off the counters (a reset that was played)."""
    lines: list[str] = []
    values = read_counters(pump, gpus)
    for kind, helps, found in (
        ("gauge", _GAUGES, read_gauges(pump, gpus)),
        ("counter", _COUNTERS, {key: value - baseline.get(key, 0.0) for key, value in values.items()}),
    ):
        for name, text in helps.items():
            series = [(label, value) for (of, label), value in found.items() if of == name]
            if not series:
                continue
            full = f"{name}_total" if kind == "counter" else name
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
            for label, value in series:
                engine = f'engine="0",model_name="{model}"' if name.startswith("vllm:") else ""
                labels = ",".join(part for part in (engine, label) if part)
                lines.append(f"{full}{{{labels}}} {float(value)!r}")
    return "\n".join(lines) + "\n"
