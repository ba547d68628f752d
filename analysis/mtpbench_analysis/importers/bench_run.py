"""One run of a load generator (vLLM's, SGLang's, AIPerf) as a point: what they share, and what is checked.

tok/s/GPU         (input + output tokens) / duration / all GPUs, from the totals of the file; its own
                  rates have to agree within 1%
tok/s/user        1 / median TPOT over requests, never of the inter-token latencies
units             TTFT + TPOT × (output tokens − 1) has to be near the latency that the file states, or
                  near the one that its concurrency implies (Little's law)
failed requests   more than 1% make the point invalid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtpbench.errors import InputError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused
from mtpbench_analysis.importers.documents import FileRow, FileRows
from mtpbench_analysis.importers.fields import Declared, UnusableError, check_finite

RATE_TOLERANCE = 0.01
"""How far a file's own rates can contradict its totals and its duration."""

MOST_FAILED = 0.01
"""The share of failed requests above which a point is invalid."""

_UNITS_FACTOR = 3.0
"""How far a latency built from medians or means can lie from the stated one; a wrong unit is 1000."""

_IDLE_FACTOR = 20.0
"""How much lower than its concurrency a burst of requests can keep the server busy (ramps, few requests)."""

_SHORTEST, _LONGEST, _TEMPLATE_TOKENS = 0.45, 1.1, 64
"""Mean length / nominal length: uniform from 0 to L means 0.5 L; a chat template adds tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A timing is a time with the name of its field in the file."""

    name: str
    seconds: float

    def __post_init__(self) -> None:
        # The smallest numbers become 0 in another unit.
        if not self.seconds > 0:
            raise UnusableError(f"{self.name} is {self.seconds:g} s: it must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class StatedRate:
    """A stated rate is the file's own, tokens/s, beside the one that its totals and its duration make."""

    name: str
    stated_tps: float
    expected_tps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run is one result of a load generator, in seconds and tokens.

    Args:
        what: file and row.
        tpot, ttft: medians over requests, for the point.
        typical_tpot, typical_ttft, typical_e2el: those the units are checked with: means where known.
        rates: the file's own, to be checked.
        tolerance: for those; more than 1% where the file rounds.
        failed: requests that failed; None where the file does not say.
        concurrency: the most requests in flight; None in an open loop.
        rate_rps: of an open loop.
        drafted: whether the file counts drafts; None where it would not say.
        isl, osl: as the file names them.
        problems: what else makes the point invalid.
        notes: what the file does not say, or says wrongly.
    """

    what: str
    duration_s: float
    input_tokens: float
    output_tokens: float
    completed: int
    failed: int | None
    tpot: Timing
    typical_tpot: Timing
    ttft: Timing | None = None
    typical_ttft: Timing | None = None
    typical_e2el: Timing | None = None
    ttft_p99_s: float | None = None
    e2el_p50_s: float | None = None
    rates: Sequence[StatedRate] = ()
    tolerance: float = RATE_TOLERANCE
    concurrency: int | None = None
    rate_rps: float | None = None
    drafted: bool | None = None
    draft_tokens: int | None = None
    acceptance_length: float | None = None
    acceptance_per_position: tuple[float, ...] | None = None
    model: str | None = None
    version: str | None = None
    isl: int | None = None
    osl: int | None = None
    workload: str | None = None
    date: str | None = None
    problems: Sequence[str] = ()
    notes: Sequence[Unused] = ()


def to_curve_point(run: Run, declared: Declared) -> CurvePoint:
    """Returns the run as a point, invalid where it contradicts itself.

    Raises:
        InputError: no arm or no GPUs were declared; no point can be made without.
        UnusableError: its times are in mixed units, so that no number of it can be trusted.
    """
    arm, gpus = require(run.what, declared)
    _check_units(run)
    isl, osl = declared.isl or run.isl, declared.osl or run.osl
    reasons = tuple(_find_problems(run, arm, isl, osl))
    output, total = run.output_tokens / run.duration_s, run.input_tokens + run.output_tokens
    point = CurvePoint(
        arm=arm,
        interactivity_tps=1 / run.tpot.seconds,
        tput_tps_per_gpu=total / run.duration_s / gpus,
        output_tps_per_gpu=output / gpus,
        input_tps_per_gpu=run.input_tokens / run.duration_s / gpus,
        concurrency=run.concurrency if run.concurrency is not None else declared.concurrency,
        rate_rps=run.rate_rps,
        gpus=gpus,
        prefill_gpus=declared.prefill_gpus,
        decode_gpus=declared.decode_gpus,
        topology=declared.topology,
        engine=declared.engine,
        version=declared.version or run.version,
        image=declared.image,
        serving=declared.serving_mode,
        hardware=declared.hardware,
        precision=declared.precision,
        model=declared.model or run.model,
        isl=isl,
        osl=osl,
        workload=run.workload,
        date=run.date,
        draft_tokens=run.draft_tokens,
        acceptance_length=run.acceptance_length,
        acceptance_per_position=run.acceptance_per_position,
        acceptance_mode=declared.acceptance_mode or ("off" if arm == "off" and not run.drafted else None),
        ttft_p50_s=run.ttft.seconds if run.ttft else None,
        ttft_p99_s=run.ttft_p99_s,
        e2el_p50_s=run.e2el_p50_s,
        source=run.what,
        valid=not reasons,
        reasons=reasons,
    )
    return check_finite(point)


def require(what: str, declared: Declared) -> tuple[str, int]:
    """Returns the declared arm and GPUs.

    Raises:
        InputError: one of them was not declared.
    """
    missing = []
    if declared.arm is None:
        missing.append("--arm (the side it belongs to, such as off or mtp)")
    if declared.total_gpus is None:
        missing.append("--gpus (all GPUs of the deployment: without them no tok/s/GPU can be made)")
    if declared.arm is None or declared.total_gpus is None:
        raise InputError(
            f"{what}: the result of a load generator, which does not say {' nor '.join(missing)}; "
            "`mtpbench import auto` takes them and writes the points that compare reads"
        )
    return declared.arm, declared.total_gpus


def read_runs(
    path: Path,
    document: FileRows,
    to_run: Callable[[FileRow], Run],
    declared: Declared,
) -> PointSet:
    """Returns the points of a tool's file; a row that can't be one is in `unused` with its reason, beside the
    notes.

    Args:
        path: the file, for messages.
        document: its rows, and what was unusable before it came to rows.
        to_run: makes a run of a row, or raises `UnusableError`.
        declared: what the command line says.

    Raises:
        InputError: no arm or no GPUs were declared.
    """
    require(str(path), declared)
    points: list[CurvePoint] = []
    lost: list[Unused] = list(document.unused)
    notes: list[Unused] = []
    for row in document.rows:
        try:
            run = to_run(row)
            points.append(to_curve_point(run, declared))
        except UnusableError as error:
            lost.append(Unused(what=row.what, reason=str(error), kind="unusable", arm=declared.arm))
            continue
        notes += dict.fromkeys([*run.notes, *_lengths_unknown(run, declared)])
    return PointSet(sources=(str(path),), points=tuple(points), unused=(*lost, *notes))


def _lengths_unknown(run: Run, declared: Declared) -> list[Unused]:
    return [
        Unused(what=f"{run.what}: {name}", reason=f"not in the file; --{name} names it", kind="note")
        for name in ("isl", "osl")
        if getattr(declared, name) is None and getattr(run, name) is None
    ]


def _find_problems(run: Run, arm: str, isl: int | None, osl: int | None) -> list[str]:
    problems = [reason for rate in run.rates if (reason := _check_rate(rate, run.tolerance))]
    sent = run.completed + (run.failed or 0)
    if run.failed is not None and run.failed > MOST_FAILED * sent:
        problems.append(f"{run.failed} of {sent} requests failed, more than {MOST_FAILED:.0%}")
    if arm == "off" and run.drafted:
        problems.append("arm off, but the file counts draft tokens")
    means = (("isl", isl, run.input_tokens), ("osl", osl, run.output_tokens))
    for name, nominal, tokens in means:
        mean = tokens / run.completed
        if nominal and not _SHORTEST * nominal <= mean <= _LONGEST * nominal + _TEMPLATE_TOKENS:
            problems.append(f"{name} {nominal} is said, but the requests had {mean:.1f} tokens on average")
    return [*problems, *run.problems]


def _check_rate(rate: StatedRate, tolerance: float) -> str | None:
    if abs(rate.stated_tps - rate.expected_tps) <= tolerance * rate.expected_tps:
        return None
    return (
        f"{rate.name} {rate.stated_tps:.6g} contradicts the file's tokens and duration, which make "
        f"{rate.expected_tps:.6g} tok/s"
    )


def _check_units(run: Run) -> None:
    """Refuses a run whose times do not go together: one of them has another unit than its name says.

    Raises:
        UnusableError: they do not.
    """
    tokens = max(run.output_tokens / run.completed - 1, 0)
    built_s = run.typical_tpot.seconds * tokens + (run.typical_ttft.seconds if run.typical_ttft else 0)
    built = f"{run.typical_tpot.name} ({run.typical_tpot.seconds:.4g} s) × {tokens:.4g} tokens"
    if run.typical_ttft:
        built += f" after {run.typical_ttft.name} ({run.typical_ttft.seconds:.4g} s)"
    stated = run.typical_e2el
    if stated is not None:
        too_long = built_s > _UNITS_FACTOR * stated.seconds
        # Without a TTFT the latency may well be that much longer: its prefill is unknown.
        too_short = run.typical_ttft is not None and built_s * _UNITS_FACTOR < stated.seconds
        if too_long or too_short:
            raise UnusableError(
                f"mixed units: {built} makes a latency of {built_s:.4g} s, but {stated.name} is "
                f"{stated.seconds:.4g} s"
            )
    _check_concurrency(run, built, built_s)


def _check_concurrency(run: Run, built: str, latency_s: float) -> None:
    if run.concurrency is None:
        return
    flying = latency_s * run.completed / run.duration_s
    too_busy = flying > _UNITS_FACTOR * run.concurrency
    # An open loop with a cap may well leave most of its slots empty.
    too_idle = run.rate_rps is None and flying * _IDLE_FACTOR < min(run.concurrency, run.completed)
    if too_busy or too_idle:
        raise UnusableError(
            f"mixed units: {built} over the duration ({run.duration_s:.4g} s) keeps {flying:.4g} requests in "
            f"flight, but the concurrency is {run.concurrency}"
        )
