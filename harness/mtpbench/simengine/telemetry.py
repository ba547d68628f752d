"""Telemetry of a server process: its counters and gauges as Prometheus text, and the times of its requests.

The metrics have vLLM's names. The process takes the times itself, independently of any client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Ints
from mtpbench.simengine.openai import FINGERPRINT
from mtpbench.simengine.step_loop import StepLoop

ROW_CAPACITY = 262_144
"""Requests whose times are held."""
COLUMNS = ("received_ns", "first_token_ns", "last_token_ns", "output_tokens", "chunks", "complete")
TTFT = "vllm:time_to_first_token_seconds"
TPOT = "vllm:request_time_per_output_token_seconds"
GAP = "vllm:inter_token_latency_seconds"
E2E = "vllm:e2e_request_latency_seconds"
HISTOGRAMS = {
    TTFT: "Time from the whole request to its first token event.",
    TPOT: "(Last - first token event) / (output tokens - 1) of each request.",
    GAP: "Time between the token events of a request.",
    E2E: "Time from the whole request to its last token event.",
}
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
"""Values by (name, the label that distinguishes series of one name)."""
Note = Callable[[int, int, int, int, bool], None]
"""Called at the end of a stream, with what `Timings.add` takes after the time of the request."""


class Timings:
    """Timings hold the times of the streamed requests that ended, in rows; the clock is `time.monotonic_ns`.

    A row is written when its stream ends, whole or broken off. Rows have numbers from 0, in the order of
    their ends; the newest `capacity` are there to be read.

    Args:
        name: of the process.
        time_scale: engine seconds per real second; `sums` are in engine seconds, rows in real nanoseconds.
        capacity: the most rows that are held.
    """

    def __init__(self, name: str, time_scale: float, capacity: int = ROW_CAPACITY) -> None:
        self._name, self._scale, self._capacity = name, time_scale, capacity
        self._rows: Ints = np.zeros((len(COLUMNS), capacity), np.int64)
        self._next = self._begin = 0
        self.sums: dict[str, list[float]] = {name: [0, 0.0] for name in HISTOGRAMS}
        """[count, seconds] of each histogram, over the whole requests; a reset leaves them alone."""

    def add(
        self, received_ns: int, first_ns: int, last_ns: int, tokens: int, chunks: int, complete: bool
    ) -> None:
        """Adds a stream that ended; a time of 0 is unknown, and so is a negative `tokens`."""
        self._rows[:, self._next % self._capacity] = (
            received_ns,
            first_ns,
            last_ns,
            tokens,
            chunks,
            complete,
        )
        self._next += 1
        if complete:
            self._count(TTFT, first_ns - received_ns)
            self._count(E2E, last_ns - received_ns)
            if tokens > 1:
                self._count(TPOT, (last_ns - first_ns) / (tokens - 1))
            self._count(GAP, last_ns - first_ns, chunks - 1)

    def reset(self) -> None:
        """Drops the rows; the numbering goes on."""
        self._begin = self._next

    def render(self, since: int, more: Mapping[str, Any]) -> bytes:
        """Returns JSON of the rows from number `since` on, and of `more` beside them.

        Raises:
            InputError: there is no such row yet.
        """
        if not 0 <= since <= self._next:
            raise InputError(f"since={since}: there are rows 0 to {self._next}")
        oldest = max(self._begin, self._next - self._capacity)
        begin = max(since, oldest)
        rows = self._rows[:, np.arange(begin, self._next) % self._capacity]
        answer: dict[str, Any] = {
            "simulated": FINGERPRINT,
            "process": self._name,
            "clock": "CLOCK_MONOTONIC",
            "time_scale": self._scale,
            "begin": begin,
            "next": self._next,
            "lost": max(0, oldest - max(since, self._begin)),
            **more,
        }
        for name, column in zip(COLUMNS, rows, strict=True):
            answer[name] = _known(name, column)
        return orjson.dumps(answer)

    def _count(self, name: str, ns: float, count: int = 1) -> None:
        entry = self.sums[name]
        entry[0] += count
        entry[1] += ns * self._scale / 1e9


def _known(name: str, column: Ints) -> list[Any]:
    values: list[Any] = column.tolist()
    if name == "complete":
        return [bool(value) for value in values]
    if name == "output_tokens":
        return [None if value < 0 else value for value in values]
    return [value or None for value in values] if name.endswith("_ns") else values


def parse_since(text: str) -> int:
    """Parses the `since` of a query.

    Raises:
        InputError: it is no whole number.
    """
    if not text.isdecimal():
        raise InputError(f"since={text}: the number of a row is needed, such as the last answer's `next`")
    return int(text)


def read_counters(step_loop: StepLoop, gpus: int, timings: Timings) -> dict[tuple[str, str], float]:
    """Returns every counter; those of speculation are missing where speculation is off.

    Histograms count as two counters each, by the names of their samples.
    """
    worker, now_s = step_loop.worker, step_loop.clock.now_s()
    values: dict[tuple[str, str], float] = {
        ("vllm:prompt_tokens", ""): worker.totals.prompt_tokens,
        ("vllm:generation_tokens", ""): worker.generation_tokens,
        ("vllm:num_preemptions", ""): worker.totals.preemptions,
        ("mtpbench_sim_steps", ""): step_loop.lateness.steps,
        ("mtpbench_sim_step_late_seconds", ""): step_loop.lateness.late_s,
        ("mtpbench_sim_step_delivery_seconds", ""): step_loop.lateness.delivery_s,
    }
    if (spec := worker.counters()) and spec.drafts is not None:
        values["vllm:spec_decode_num_drafts", ""] = spec.drafts
        values["vllm:spec_decode_num_draft_tokens", ""] = spec.draft_tokens or 0.0
        values["vllm:spec_decode_num_accepted_tokens", ""] = spec.accepted_tokens
        for i, count in enumerate(spec.per_position):
            values["vllm:spec_decode_num_accepted_tokens_per_pos", f'position="{i}"'] = count
    energy_j = worker.energy_j(now_s)
    for gpu in range(gpus):
        values["mtpbench_sim_gpu_energy_joules", f'gpu="{gpu}"'] = energy_j
    for name, (count, seconds) in timings.sums.items():
        values[f"{name}_count", ""], values[f"{name}_sum", ""] = count, seconds
    return values


def read_gauges(step_loop: StepLoop, gpus: int) -> dict[tuple[str, str], float]:
    """Returns every gauge."""
    worker = step_loop.worker
    values: dict[tuple[str, str], float] = {
        ("vllm:num_requests_running", ""): worker.running,
        ("vllm:num_requests_waiting", ""): worker.waiting,
        ("mtpbench_sim_step_late_seconds_max", ""): step_loop.recent.late_max_s,
        ("mtpbench_sim_step_delivery_seconds_max", ""): step_loop.recent.delivery_max_s,
    }
    power_w = step_loop.power_w()
    for gpu in range(gpus):
        values["mtpbench_sim_gpu_power_watts", f'gpu="{gpu}"'] = power_w
    return values


def render(step_loop: StepLoop, gpus: int, timings: Timings, model: str, baseline: Counters) -> str:
    """Returns the text of /metrics; `baseline` is subtracted from the counters (for a planned reset)."""
    lines: list[str] = []
    counters = read_counters(step_loop, gpus, timings)
    counted = {key: value - baseline.get(key, 0.0) for key, value in counters.items()}
    for kind, helps, values in (
        ("gauge", _GAUGES, read_gauges(step_loop, gpus)),
        ("counter", _COUNTERS, counted),
    ):
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
    """Returns the lines of the timings' histograms, each of one bucket: only sum and count are known."""
    lines: list[str] = []
    for name, text in HISTOGRAMS.items():
        count, labels = float(read(f"{name}_count")), _engine(model)
        lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{{labels},le="+Inf"}} {count!r}', f"{name}_count{{{labels}}} {count!r}"]
        lines.append(f"{name}_sum{{{labels}}} {float(read(f'{name}_sum'))!r}")
    return lines


def _engine(model: str) -> str:
    return f'engine="0",model_name="{model}"'
