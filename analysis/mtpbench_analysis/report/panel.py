"""Pure: the data of a point's panel as JSON: latencies, power, health, provenance.

A point is a list in the order of `COLUMNS`. A start of servers, a command line or a text that many points
share stands once.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtpbench.records import Distribution, PointResult, Provenance
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.frame import CurvePoint, without_start
from mtpbench_analysis.report.overview import shorten_paths
from mtpbench_analysis.traces import POWER_VALUES, QUANTILES, Floats, PointTrace, SweepTrace, thin

QUANTILES_IN_ALL, POWER_VALUES_IN_ALL = 18_000, 20_000
"""The most quantiles of one kind, and the most power values, on a page with many points: a page of 1,000
points with their traces stays under 2 MB."""
FEWEST = 16
"""The fewest values of a curve; with fewer its shape is lost."""

TEXTS = (
    "id",
    "arm",
    "recipe",
    "clock",
    "tpot_basis",
    "started",
    "finished",
    "latency_reason",
    "power_source",
    "mark",
)
COLUMNS = (
    *TEXTS,
    "repeat",
    "reasons",
    "requests",
    "failed",
    "errors",
    "ttft",
    "tpot",
    "e2el",
    "open_loop",
    "shares",
    "ttft_ms",
    "tpot_ms",
    "window",
    "power_times_s",
    "power_w",
    "power_gpus",
    "power_reason",
    "energy",
    "idle",
    "acceptance",
    "client",
    "gpus",
    "start",
)
DISTRIBUTION = ("count", "min", "p10", "p50", "p90", "p99", "max")
ENERGY = (
    "energy_j",
    "mean_power_w_per_gpu",
    "joules_per_token",
    "joules_per_output_token",
    "joules_per_input_token",
    "prefill_joules_per_input_token",
    "decode_joules_per_output_token",
    "grace_energy_j",
)
CLIENT_TEXTS = ("transport", "stamps")
CLIENT = (
    *CLIENT_TEXTS,
    "workers",
    "host_clock_error_s",
    "reader_lag_p50_s",
    "reader_lag_p99_s",
    "send_lag_p50_s",
    "send_lag_p99_s",
    "reads",
    "coalesced_reads",
    "cpu_share",
    "achieved_concurrency",
    "late_starts",
    "unsent",
    "clock_drift_s",
    "clock_step_s",
    "misstamped_reads",
    "descriptor_limit",
    "local_ports",
    "peak_rss_bytes",
)
PROVENANCE = (
    "server_start",
    "executor",
    "host",
    "harness_version",
    "git_revision",
    "python",
    "engine_version",
    "image",
    "driver",
)


class TextTable:
    """The texts of a page's data, each once, by their place."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def index(self, text: str | None) -> int | None:
        """Returns the text's place; None for None."""
        return None if text is None else self._places.setdefault(text, len(self._places))

    @property
    def texts(self) -> list[str]:
        """All texts, by their place."""
        return list(self._places)


class Traces:
    """The traces of a page, by their number in its data."""

    def __init__(self, sweeps: Sequence[SweepTrace]) -> None:
        self.points = [point for sweep in sweeps for point in sweep.points]
        self._numbers = {without_start(t.point): i for i, t in enumerate(self.points) if t.point is not None}

    def numbers(self, runs: Sequence[CurvePoint]) -> list[int]:
        """Returns the numbers of these runs' traces; a run of another tool has none."""
        return [self._numbers[run] for run in map(without_start, runs) if run in self._numbers]

    def describe(self, texts: TextTable) -> dict[str, Any]:
        """Returns all traces as JSON; on a page of many points each has fewer quantiles and power values."""
        count = max(1, len(self.points))
        quantiles = min(QUANTILES, max(FEWEST, QUANTILES_IN_ALL // count))
        power = min(POWER_VALUES, max(FEWEST, POWER_VALUES_IN_ALL // count))
        starts = _Starts(texts)
        return {
            "columns": list(COLUMNS),
            "texts": list(TEXTS),
            "distribution": list(DISTRIBUTION),
            "energy": list(ENERGY),
            "client": list(CLIENT),
            "client_texts": list(CLIENT_TEXTS),
            "provenance": list(PROVENANCE),
            "points": [_point(point, texts, starts, quantiles, power) for point in self.points],
            "starts": starts.described,
            "commands": starts.commands,
            "quantiles": quantiles,
            "power_values": power,
            "coarse": quantiles < QUANTILES or power < POWER_VALUES,
            "without_figures": [i for i, point in enumerate(self.points) if point.point is None],
        }


class _Starts:
    """Starts of servers and command lines, each once: a whole ladder shares them."""

    def __init__(self, texts: TextTable) -> None:
        self.described: list[list[Any]] = []
        self.commands: list[list[Any]] = []
        self._texts = texts
        self._places: dict[str, int] = {}

    def index(self, provenance: Provenance, hosts: Sequence[str]) -> int:
        texts = self._texts
        entry = [
            [texts.index(_text(getattr(provenance, name))) for name in PROVENANCE],
            provenance.git_dirty,
            [texts.index(text) for text in provenance.gpus],
            _pairs(provenance.packages, texts),
            _pairs(provenance.environment, texts),
            [texts.index(text) for text in provenance.notes],
            [texts.index(host) for host in hosts],
            [self._command(name, line) for name, line in provenance.command_lines.items()],
        ]
        return _place_of(entry, self.described, self._places)

    def _command(self, name: str, line: Sequence[str]) -> int:
        # Each argument is quoted for a shell and stands once: other command lines share most of them.
        entry = [self._texts.index(name), *(self._texts.index(shlex.quote(argument)) for argument in line)]
        return _place_of(entry, self.commands, self._places)


def _place_of(entry: list[Any], entries: list[list[Any]], places: dict[str, int]) -> int:
    key = f"{id(entries)} {entry!r}"
    if key not in places:
        places[key] = len(entries)
        entries.append(entry)
    return places[key]


def _point(
    trace: PointTrace, texts: TextTable, starts: _Starts, quantiles: int, power_values: int
) -> list[Any]:
    result, load, power = trace.stored.result, trace.stored.point.load, trace.power
    energy = result.energy
    shares = (result.cached_prompt_share, trace.requests.reasoning_share)
    times_s, power_w = thin(power.times_s, power.power_w, power_values)
    values = {
        **{name: texts.index(text) for name, text in _texts(trace).items()},
        "repeat": trace.stored.point.repeat,
        "reasons": [
            texts.index(shorten_paths(f"{reason.code}: {reason.detail}")) for reason in result.reasons
        ],
        "requests": result.requests,
        "failed": result.failed_requests,
        "errors": [
            [texts.index(code), count, texts.index(_without_folders(trace.requests.examples.get(code)))]
            for code, count in result.errors.items()
        ],
        "ttft": _distribution(result.ttft_as_waited_s(load)),
        "tpot": _distribution(result.tpot_s),
        "e2el": _distribution(result.e2el_as_waited_s(load)),
        "open_loop": int(load.open),
        "shares": [_short(share) for share in shares] if any(share is not None for share in shares) else 0,
        "ttft_ms": _milliseconds(trace.requests.ttft_s, quantiles),
        "tpot_ms": _milliseconds(trace.requests.tpot_s, quantiles),
        "window": _window(power.window_s, result),
        "power_times_s": [_short(value, 5) for value in times_s.tolist()],
        "power_w": [_short(value) for value in power_w.tolist()],
        "power_gpus": energy.gpus,
        "power_reason": texts.index(_without_folders(power.reason)),
        "energy": [_short(getattr(energy, name), 6) for name in ENERGY],
        "idle": [
            [texts.index(idle.state), _short(idle.power_w_per_gpu), texts.index(_text(idle.reason))]
            for idle in result.idle
        ],
        "acceptance": _acceptance(trace, texts),
        "client": _client(result, texts),
        "gpus": _gpus(result, texts),
        "start": starts.index(trace.stored.provenance, result.client.hosts),
    }
    return [values[name] for name in COLUMNS]


def _texts(trace: PointTrace) -> dict[str, str | None]:
    """Returns the columns of `TEXTS`."""
    result, provenance = trace.stored.result, trace.stored.provenance
    return {
        "id": result.point_id,
        "arm": display_name(trace.stored.point.arm.name),
        "recipe": trace.recipe,
        "clock": result.clock,
        "tpot_basis": result.tpot_basis,
        "started": provenance.started_utc,
        "finished": provenance.finished_utc,
        "latency_reason": _without_folders(trace.requests.reason),
        "power_source": result.energy.source_text,
        "mark": "SIMULATED" if result.simulated else None,
    }


def _window(window_s: tuple[float, float] | None, result: PointResult) -> list[Any] | None:
    """Returns beginning and end of the window, and the seconds that were cut before it, if any."""
    if window_s is None:
        return None
    cut_s = result.settling.cut_s if result.settling else 0.0
    return [_short(value, 6) for value in (*window_s, *([cut_s] if cut_s else []))]


def _distribution(sample: Distribution | None) -> list[Any] | None:
    return None if sample is None else [_short(getattr(sample, name), 5) for name in DISTRIBUTION]


def _milliseconds(quantiles: Floats, at_most: int) -> list[Any]:
    """Returns quantiles in milliseconds, which need fewer characters than seconds; at most `at_most`."""
    if len(quantiles) > at_most:
        quantiles = np.quantile(quantiles, np.linspace(0, 1, at_most))
    return [_short(value * 1e3) for value in quantiles.tolist()]


def _acceptance(trace: PointTrace, texts: TextTable) -> list[Any]:
    acceptance, arm = trace.stored.result.acceptance, trace.stored.point.arm
    mode = arm.speculation.acceptance.mode if arm.speculation else "off"
    rates = None if acceptance.per_position is None else [_short(share) for share in acceptance.per_position]
    sources = [texts.index(mode), texts.index(acceptance.source_text), texts.index(acceptance.reason)]
    return [_short(acceptance.length), _short(acceptance.rate), rates, _short(acceptance.drafts, 8), *sources]


def _client(result: PointResult, texts: TextTable) -> list[Any] | None:
    """Returns the load client's own figures; None where no figure was recorded."""
    values = [getattr(result.client, name) for name in CLIENT]
    if all(value is None for value in values):
        return None
    return [texts.index(value) if isinstance(value, str) else _short(value, 5) for value in values]


def _gpus(result: PointResult, texts: TextTable) -> list[Any] | None:
    """Returns the GPUs' highest temperature, lowest and highest power limit, and reasons for low clocks."""
    gpus = [gpu for gpu in result.gpus if not gpu.name.startswith("unused@")]
    if not gpus:
        return None
    hottest = [gpu.temperature_max_c for gpu in gpus if gpu.temperature_max_c is not None]
    caps = [cap for gpu in gpus for cap in (gpu.power_cap_min_w, gpu.power_cap_max_w) if cap is not None]
    reasons = sorted({reason for gpu in gpus for reason in gpu.clock_reasons or ()})
    return [
        max(hottest, default=None),
        min(caps, default=None),
        max(caps, default=None),
        [texts.index(reason) for reason in reasons],
    ]


def _pairs(values: Mapping[str, str], texts: TextTable) -> list[list[Any]]:
    return [[texts.index(name), texts.index(value)] for name, value in values.items()]


def _without_folders(text: str | None) -> str | None:
    return None if text is None else shorten_paths(text)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _short(value: float | None, digits: int = 4) -> float | int | None:
    """Returns the value with so many significant digits; a whole number without `.0`."""
    if value is None or not np.isfinite(value):
        return None
    if isinstance(value, int):
        return value
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded
