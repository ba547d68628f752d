"""Fits a profile's factors to measured points, and computes the residuals, with held-out points too.

Fitted: `decode_scale` and `decode_overhead_ms` (not below 0) of each layout family that the points decode on
(the scale alone where there is one point), and `prefill_scale`. The fit minimises the squared log ratios
of throughput and interactivity, with a closed-form steady state in the inner loop (Little's law around the
step tables; no imbalance, no queueing); the residuals that are reported come from the discrete-event model
on its virtual clock. Each point is held out in turn: its held-out residual is that of factors fitted
without it.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtpbench.errors import ImportFileError
from mtpbench.input_files import read_input_text
from mtpbench.metrics.request_table import Floats, RequestTable
from mtpbench.records import EngineLimits, Topology, WorkerGroup, WorkerRole
from mtpbench.simengine.profile import Factors, Profile, family_of

COLUMNS = ("concurrency", "prefill_layout", "decode_layout", "tput_per_gpu", "interactivity")
_LAYOUT = re.compile(r"([1-9][0-9]{0,4})x(DEP|TP)([1-9][0-9]{0,4})")
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_MOST, MOST_BYTES = 1_000_000_000, 1 << 24
_FIXED_POINT_ROUNDS = 40
_ROUNDS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSetting:
    """A fit setting holds what the points have in common: lengths, and the limits of one attention rank.

    The defaults are those of the published GB200 recipe for vLLM.
    """

    isl: int = 8192
    osl: int = 1024
    range_ratio: float = 0.8
    prefill_chunk_per_rank: int = 16384
    prefill_running_per_rank: int = 8
    decode_running_per_rank: int = 512
    stream_interval: int = 50

    def limits(self, topology: Topology) -> Mapping[WorkerRole, EngineLimits]:
        """Returns the scheduler limits of a topology's workers."""
        by_role: dict[WorkerRole, EngineLimits] = {}
        for group in topology.groups:
            running = (
                self.prefill_running_per_rank if group.role == "prefill" else self.decode_running_per_rank
            )
            by_role[group.role] = EngineLimits(
                max_running=running * group.dp,
                prefill_chunk_tokens=self.prefill_chunk_per_rank * group.dp,
                stream_interval=self.stream_interval,
            )
        return by_role

    @property
    def mean_isl(self) -> float:
        """Returns the mean number of prompt tokens."""
        return self.isl * (1 + self.range_ratio) / 2

    @property
    def mean_osl(self) -> float:
        """Returns the mean number of output tokens."""
        return self.osl * (1 + self.range_ratio) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredPoint:
    """A measured point; `rates` are its acceptance rates, empty with speculation off."""

    concurrency: int
    topology: Topology
    tput_tps_per_gpu: float
    interactivity_tps: float
    rates: tuple[float, ...] = ()

    @property
    def prefill(self) -> WorkerGroup:
        """Returns the prefill workers."""
        return self.topology.groups[0]

    @property
    def decode(self) -> WorkerGroup:
        """Returns the decode workers."""
        return self.topology.groups[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class SteadyRates:
    """The throughput and the interactivity that a model computes for a point."""

    tput_tps_per_gpu: float
    interactivity_tps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """A residual is a point's error in percent (model / measured - 1), in sample and held out."""

    point: MeasuredPoint
    tput: float
    interactivity: float
    held_out_tput: float | None
    held_out_interactivity: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A calibration holds the fitted profile, and the residuals of every point."""

    profile: Profile
    residuals: tuple[Residual, ...]


def read_points(path: Path) -> tuple[MeasuredPoint, ...]:
    """Reads the points of a CSV with the columns `COLUMNS`, and `acceptance_rates` (`0.79/0.48/0.22`) if any.

    Lines that start with # are comments. Layouts read `2xDEP8`; other columns are ignored.

    Raises:
        InputError: the file, a column or a value is missing or wrong; names the line.
    """
    lines = read_input_text(path, MOST_BYTES).splitlines()
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if len(numbered) < 2:
        raise ImportFileError(f"{path}: no points; a header with {', '.join(COLUMNS)} and rows are needed")
    reader = csv.DictReader((line for _, line in numbered), strict=True)
    try:
        fields, rows = reader.fieldnames or (), [(numbered[reader.line_num - 1][0], row) for row in reader]
    except csv.Error as error:  # a quote that does not end, a field without end
        raise ImportFileError(
            f"{path}:{numbered[min(reader.line_num, len(numbered) - 1)][0]}: not CSV: {error}"
        ) from error
    if missing := [name for name in COLUMNS if name not in fields]:
        raise ImportFileError(
            f"{path}:{numbered[0][0]}: no column {', '.join(missing)}; needed: {', '.join(COLUMNS)}"
        )
    points = []
    for number, row in rows:
        try:
            points.append(_point(row))
        except (ValueError, TypeError) as error:
            raise ImportFileError(f"{path}:{number}: {error}") from error
    return tuple(points)


def _point(row: Mapping[str, str | None]) -> MeasuredPoint:
    def number(name: str) -> float:
        text = row[name] or ""
        value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
        if not 0 < value < _MOST:
            raise ValueError(f"{name} must be a number above 0 and below {_MOST:,}, not {reprlib.repr(text)}")
        return value

    return MeasuredPoint(
        concurrency=int(number("concurrency")),
        topology=Topology(groups=(_group("prefill", row), _group("decode", row))),
        tput_tps_per_gpu=number("tput_per_gpu"),
        interactivity_tps=number("interactivity"),
        rates=tuple(map(_rate, filter(None, (row.get("acceptance_rates") or "").split("/")))),
    )


def _rate(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()) or not 0 <= (rate := float(text)) <= 1:
        raise ValueError(f"acceptance_rates are numbers from 0 to 1, as 0.79/0.48, not {reprlib.repr(text)}")
    return rate


def _group(role: WorkerRole, row: Mapping[str, str | None]) -> WorkerGroup:
    text = row[f"{role}_layout"] or ""
    if not (match := _LAYOUT.fullmatch(text)):
        raise ValueError(f"{role}_layout {reprlib.repr(text)} is not like 2xDEP8 or 1xTP8")
    workers, width = int(match[1]), int(match[3])
    if match[2] == "DEP":
        return WorkerGroup(role=role, workers=workers, tp=1, dp=width, ep=width)
    return WorkerGroup(role=role, workers=workers, tp=width)


def steady_state(point: MeasuredPoint, profile: Profile, setting: FitSetting) -> SteadyRates:
    """Computes a point's throughput and interactivity in closed form.

    The largest batch per decode rank at which decoding keeps below what the prefill ranks can take, and
    requests in prefill, in transfer and in the batch (Little's law) keep below the concurrency.
    """
    prefill, decode, isl, osl = point.prefill, point.decode, setting.mean_isl, setting.mean_osl
    length = 1 + sum(point.rates)
    line = profile.prefill_line_s(prefill)
    chunk = float(setting.prefill_chunk_per_rank)
    prefill_rps = prefill.workers * prefill.dp * chunk / line.at(chunk) / isl
    wait_s = line.at(isl) + profile.transfer_s(int(isl))
    ranks = decode.workers * decode.dp
    high = max(2.0, math.ceil(point.concurrency / ranks))
    steps = profile.step_times_s(decode, len(point.rates), int(high))
    steps[0] = steps[1]
    sizes = np.arange(len(steps), dtype=np.float64)
    low = rate_rps = 0.0
    for _ in range(_FIXED_POINT_ROUNDS):
        batch = (low + high) / 2
        batch_rps = batch * ranks * length / (osl * float(np.interp(batch, sizes, steps)))
        if batch_rps <= prefill_rps and batch_rps * wait_s + batch * ranks <= point.concurrency:
            low, rate_rps = batch, batch_rps
        else:
            high = batch
    step_s = float(np.interp(low, sizes, steps))
    return SteadyRates(
        tput_tps_per_gpu=rate_rps * (isl + osl) / point.topology.gpus, interactivity_tps=length / step_s
    )


def measure_steady(requests: RequestTable, gpus: int) -> SteadyRates:
    """Computes throughput from warm-up to the last send, and 1 / median TPOT of requests that end there."""
    end_s = float(requests.sent_s.max())
    start_s = min(float(requests.end_s[requests.warmup].max(initial=0.0)), end_s / 2)
    inside = (requests.end_s >= start_s) & (requests.end_s <= end_s)
    if end_s <= start_s or not inside.any():
        start_s, end_s = 0.0, float(requests.end_s.max())
        inside = np.ones(len(requests), np.bool_)
    first = requests.first_chunk_s
    tokens = float(requests.prompt_tokens[(first >= start_s) & (first <= end_s)].sum())
    generated = np.diff(requests.chunk_tokens, prepend=0)
    starts = requests.chunk_offsets[:-1]
    generated[starts] = requests.chunk_tokens[starts]
    times = requests.chunk_times_s
    tokens += float(generated[(times >= start_s) & (times <= end_s)].sum())
    several = inside & (requests.output_tokens > 1)
    tpot_s = (requests.last_chunk_s - first)[several] / (requests.output_tokens[several] - 1)
    return SteadyRates(
        tput_tps_per_gpu=tokens / (end_s - start_s) / gpus, interactivity_tps=1 / float(np.median(tpot_s))
    )


def fit(points: Sequence[MeasuredPoint], profile: Profile, setting: FitSetting) -> Profile:
    """Returns the profile with the factors that fit the points best (damped Gauss-Newton on log ratios)."""
    counts = {name: sum(family_of(p.decode) == name for p in points) for name in ("dep", "tp")}
    families = [name for name, count in counts.items() if count]
    overheads = [name for name in families if counts[name] > 1]

    def with_factors(x: Floats) -> Profile:
        scales = dict(profile.factors.decode_scale)
        scales |= {name: float(np.exp(x[i])) for i, name in enumerate(families)}
        added = dict(profile.factors.decode_overhead_ms)
        added |= {name: max(0.0, float(x[len(families) + 1 + i])) for i, name in enumerate(overheads)}
        factors = Factors(
            decode_scale=scales, decode_overhead_ms=added, prefill_scale=float(np.exp(x[len(families)]))
        )
        return dataclasses.replace(profile, factors=factors)

    def errors(x: Floats) -> Floats:
        trial = with_factors(x)
        log_ratios = []
        for point in points:
            outcome = steady_state(point, trial, setting)
            log_ratios.append(math.log(outcome.tput_tps_per_gpu / point.tput_tps_per_gpu))
            log_ratios.append(math.log(outcome.interactivity_tps / point.interactivity_tps))
        return np.array(log_ratios)

    start = np.zeros(len(families) + 1 + len(overheads))
    start[len(families) + 1 :] = 1.0
    return with_factors(_least_squares(errors, start, nonnegative_from=len(families) + 1))


def _least_squares(errors: Callable[[Floats], Floats], x: Floats, *, nonnegative_from: int) -> Floats:
    damping, current = 1e-2, errors(x)
    for _ in range(_ROUNDS):
        columns = []
        for i in range(len(x)):
            nudged = x.copy()
            nudged[i] += 1e-3
            columns.append((errors(nudged) - current) / 1e-3)
        jacobian = np.stack(columns, axis=1)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(
            normal + damping * (np.diag(np.diag(normal)) + 1e-9 * np.eye(len(x))), -jacobian.T @ current
        )
        trial = x + step
        trial[nonnegative_from:] = np.maximum(trial[nonnegative_from:], 0.0)
        trial_errors = errors(trial)
        if trial_errors @ trial_errors < current @ current:
            done = current @ current - trial_errors @ trial_errors < 1e-9
            x, current, damping = trial, trial_errors, damping / 3
            if done:
                break
        else:
            damping *= 4
    return x


def calibrate(
    points: Sequence[MeasuredPoint],
    profile: Profile,
    setting: FitSetting,
    play: Callable[[MeasuredPoint, Profile, FitSetting], SteadyRates],
) -> Calibration:
    """Fits the factors on all points, and holds each point out in turn.

    Args:
        points: at least two.
        profile: has the tables.
        setting: is common to the points.
        play: the model that gives the residuals (the virtual clock).
    """
    if len(points) < 2:
        raise ImportFileError("at least 2 points are needed to fit factors")
    fitted = fit(points, profile, setting)
    residuals = []
    for i, point in enumerate(points):
        others = [*points[:i], *points[i + 1 :]]
        inside = play(point, fitted, setting)
        outside = None
        if family_of(point.decode) in {family_of(other.decode) for other in others}:
            outside = play(point, fit(others, profile, setting), setting)
        residuals.append(
            Residual(
                point=point,
                tput=_percent(inside.tput_tps_per_gpu, point.tput_tps_per_gpu),
                interactivity=_percent(inside.interactivity_tps, point.interactivity_tps),
                held_out_tput=_percent(outside.tput_tps_per_gpu, point.tput_tps_per_gpu) if outside else None,
                held_out_interactivity=_percent(outside.interactivity_tps, point.interactivity_tps)
                if outside
                else None,
            )
        )
    return Calibration(profile=fitted, residuals=tuple(residuals))


def _percent(model: float, measured: float) -> float:
    return 100 * (model / measured - 1)
