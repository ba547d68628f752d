"""One run of a load generator (vLLM's, SGLang's, AIPerf), and what in it contradicts itself.

tok/s/GPU         (input + output tokens) / duration / all GPUs, from the totals of the file; its own
                  rates have to agree within 1%
tok/s/user        1 / median TPOT over requests, never of the inter-token latencies; but those say how many
                  tokens a chunk holds, and where nothing speculates that is one
units             TTFT + TPOT × (output tokens − 1) has to be near the latency that the file states, or
                  near the one that its concurrency implies (Little's law)
load, lengths     the rate, concurrency and lengths that were asked for have to be reached
failed requests   more than 1% make the point invalid
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from mtpbench.errors import InputError
from mtpbench.records import OFF
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import FileRow, FileRows
from mtpbench_analysis.importers.fields import (
    DrawnLengths,
    Run,
    StatedRate,
    UnusableError,
    check_finite,
    drawn_from,
)

MOST_FAILED = 0.01
"""The share of failed requests above which a point is invalid."""

_UNITS_FACTOR = 3.0
"""How far a latency built from medians or means can lie from the stated one; a wrong unit is 1000."""

_IDLE_FACTOR = 20.0
"""How much longer than its requests keep their slots busy a run can last before a unit must be wrong."""

_SHORTEST, _LONGEST, _TEMPLATE_TOKENS = 0.85, 1.1, 64
"""Mean length / nominal length where nobody says how lengths were drawn: uniform from 0.8 L to L means 0.9 L;
a chat template adds tokens."""

_LENGTH_TOLERANCE = {"isl": 0.1, "osl": 0.02}
"""How far the mean length can lie from the one that was asked for, beyond the chance of the draw; prompts
made of words are a few tokens shorter or longer than what they were made from."""

_SIGMAS = 4.0
"""How many standard errors of the mean are chance."""

_LATE = 1.1
"""How much longer than its load needs a run can take."""

_QUEUED_SHARE = 0.1
"""Of the latency, how much longer users can have waited for a slot of the client before it counts."""

_CHUNK_TOLERANCE = 1.25
"""How far mean gap between chunks / mean TPOT can lie from the tokens of a chunk: the first is a mean over
chunks, the second over requests."""

_FIRST_TOKENS = 8
"""The most that a first chunk holds, with speculation."""


def to_curve_point(run: Run, declared: Declared) -> CurvePoint:
    """Returns the run as a point, invalid where it contradicts itself.

    Raises:
        InputError: no arm or no GPUs were declared; no point can be made without.
        UnusableError: its times are in mixed units, so that no number of it can be trusted.
    """
    arm, gpus = require(run.what, declared)
    _check_units(run)
    isl, osl = declared.isl or run.isl, declared.osl or run.osl
    reasons = tuple(find_problems(run, declared))
    output, total = run.output_tokens / run.duration_s, run.input_tokens + run.output_tokens
    # Drafts that were counted are evidence against a name; without evidence an arm off is off.
    method = run.method or declared.method or (OFF if arm == OFF and not run.drafted else None)
    point = CurvePoint(
        arm=arm,
        interactivity_tps=1 / run.interactivity.seconds,
        tput_tps_per_gpu=total / run.duration_s / gpus,
        output_tps_per_gpu=output / gpus,
        input_tps_per_gpu=run.input_tokens / run.duration_s / gpus,
        concurrency=run.concurrency if run.concurrency is not None else declared.concurrency,
        rate_rps=run.rate_rps,
        gpus=gpus,
        prefill_gpus=declared.prefill_gpus,
        decode_gpus=declared.decode_gpus,
        topology=declared.topology or (f"1x{run.worker}" if run.worker and gpus == run.worker_gpus else None),
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
        method=method,
        draft_tokens=run.draft_tokens or (0 if method == OFF else declared.draft_tokens),
        depth_rule=None if run.adaptive is None else "adaptive" if run.adaptive else "static",
        checkpoint=declared.checkpoint or run.checkpoint,
        draft_model=run.draft_model,
        draft_tokens_per_step=run.draft_tokens_per_step,
        acceptance_length=run.acceptance_length,
        acceptance_per_position=run.acceptance_per_position,
        acceptance_caveats=run.acceptance_caveats,
        acceptance_mode=declared.acceptance_mode or (OFF if method == OFF else None),
        ttft_p50_s=run.ttft.at_s(50),
        ttft_p99_s=run.ttft.at_s(99),
        e2el_p50_s=run.e2el.at_s(50),
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


def find_problems(run: Run, declared: Declared) -> list[str]:
    """Returns what makes a run an invalid point: what it contradicts itself in, and how much of it failed."""
    found: Sequence[str | None] = (
        *(_check_rate(rate, run.tolerance) for rate in run.rates),
        _check_requests(run),
        _check_failed(run),
        "arm off, but the file counts draft tokens" if declared.arm == "off" and run.drafted else None,
        _check_worker(run, declared.total_gpus),
        *_check_lengths(run, declared),
        _check_offered(run),
        _check_queue(run),
        _check_in_flight(run, run.concurrency or declared.concurrency),
        _check_chunks(run, declared),
        *_check_order(run),
        _check_latency(run),
        *run.problems,
    )
    return [problem for problem in found if problem]


def _check_rate(rate: StatedRate, tolerance: float) -> str | None:
    if abs(rate.stated_tps - rate.expected_tps) <= tolerance * rate.expected_tps:
        return None
    return (
        f"{rate.name} {rate.stated_tps:.6g} contradicts the file's tokens and duration, which make "
        f"{rate.expected_tps:.6g} tok/s"
    )


def _check_requests(run: Run) -> str | None:
    made_rps = run.completed / run.duration_s
    if run.requests_rps is None or abs(run.requests_rps - made_rps) <= run.tolerance * made_rps:
        return None
    return (
        f"request_throughput {run.requests_rps:.6g} contradicts the file's requests and duration, which make "
        f"{made_rps:.6g} requests/s"
    )


def _check_failed(run: Run) -> str | None:
    if run.failed is None or run.failed <= MOST_FAILED * run.sent:
        return None
    return f"{run.failed} of {run.sent} requests failed, more than {MOST_FAILED:.0%}"


def _check_worker(run: Run, gpus: int | None) -> str | None:
    if gpus is None or run.worker_gpus is None or gpus >= run.worker_gpus:
        return None
    return f"{gpus} GPUs are said, but one worker ({run.worker}) has {run.worker_gpus}"


def _check_lengths(run: Run, declared: Declared) -> Iterator[str | None]:
    """Holds the lengths that were asked for against those that were served."""
    drawn = run.drawn if declared.range_ratio is None else drawn_from(declared.range_ratio)
    sides = (
        ("isl", declared.isl, run.isl, run.input_tokens),
        ("osl", declared.osl, run.osl, run.output_tokens),
    )
    for name, said, in_file, tokens in sides:
        # Without a word on how they were drawn, the file's lengths are those that its requests show.
        if run.drawn and said and in_file and said != in_file:
            yield f"--{name} {said} contradicts the file, which says {in_file}"
        nominal, mean = said or in_file, tokens / run.completed
        if nominal is None:
            continue
        low, high = _bounds(drawn, nominal, run.completed, _LENGTH_TOLERANCE[name])
        template = (_LONGEST - 1) * nominal + _TEMPLATE_TOKENS if name == "isl" or drawn is None else 0
        if not low <= mean <= high + template:
            unknown = "" if drawn else "; if they were drawn from R × L to L, --range-ratio R says so"
            yield f"{name} {nominal} is said, but the requests had {mean:.1f} tokens on average{unknown}"


def _bounds(drawn: DrawnLengths | None, nominal: int, requests: int, tolerance: float) -> tuple[float, float]:
    """Returns between what the mean length of the requests lies by chance, in tokens."""
    if drawn is None:
        return _SHORTEST * nominal, nominal
    chance = tolerance + _SIGMAS * drawn.deviation / math.sqrt(requests)
    return (drawn.mean - chance) * nominal - 1, (drawn.mean + chance) * nominal + 1


def _check_offered(run: Run) -> str | None:
    """Holds the rate of an open loop against the requests that were sent in the time that they took."""
    if run.rate_rps is None:
        return None
    due_s = run.sent / run.rate_rps
    chance = 3 / math.sqrt(run.sent * run.burstiness)
    late = run.duration_s > _LATE * (due_s * (1 + chance) + run.longest_s)
    early = run.duration_s * _LATE < due_s * (1 - chance)
    if not late and not early:
        return None
    return (
        f"{run.rate_rps:g} requests/s were asked for, but {run.sent} in {run.duration_s:.4g} s make "
        f"{run.sent / run.duration_s:.3g}"
    )


def _check_queue(run: Run) -> str | None:
    if run.rate_rps is None or run.queued_s is None or run.queued_s <= _QUEUED_SHARE * run.latency_s:
        return None
    return (
        f"requests waited {run.queued_s:.4g} s on average for a slot of the client (client_queue_time), "
        "which neither TTFT nor latency holds"
    )


def _check_in_flight(run: Run, asked: int | None) -> str | None:
    """Holds the concurrency of a closed loop against the requests that were in flight (Little's law).

    However a list of requests is spread over so many slots, it ends after (all their latencies / slots) + the
    longest latency, if no slot idles while one waits.
    """
    stated = run.e2el.typical
    flying = run.latency_s * run.completed / run.duration_s
    if run.in_flight is not None and abs(run.in_flight - flying) > 0.05 * flying and stated:
        return f"concurrency {run.in_flight:.4g} contradicts latencies and duration, which make {flying:.4g}"
    if asked is None or run.rate_rps is not None:
        return None
    idle = run.duration_s > _LATE * (run.sent * run.latency_s / asked + run.longest_s)
    # What TTFT and TPOT make of a mean request is too much where short answers are slow ones.
    crowded = flying > asked * ((_LATE if stated else 1.5) + run.tolerance)
    if not idle and not crowded:
        return None
    return f"a concurrency of {asked} was asked for, but {flying:.3g} requests were in flight on average"


def _check_chunks(run: Run, declared: Declared) -> str | None:
    """Holds the tokens of a chunk, mean gap / mean TPOT, against what speculation and interval explain.

    Tokens that make no chunk at the end of an answer shorten its TPOT: its user is said to be too fast.
    """
    gap, tpot = run.gaps.mean, run.tpot.mean
    if gap is None or tpot is None:
        return None
    off = not run.drafted and ("off" in (declared.arm, declared.acceptance_mode) or run.drafted is False)
    longest = 1.0 if off else run.acceptance_length or (1 + run.draft_tokens if run.draft_tokens else None)
    if longest is None:
        return None
    tokens = gap.seconds / tpot.seconds
    if tokens <= _CHUNK_TOLERANCE * max(longest, 1) * (declared.stream_interval or 1):
        return None
    why = "nothing speculates" if off else f"speculation makes {longest:.3g} tokens a step"
    return (
        f"{gap.name} is {tokens:.3g} times {tpot.name}, but {why}: tokens without chunks, which make users "
        "look faster than they are, or a stream interval, which --stream-interval names"
    )


def _check_order(run: Run) -> Iterator[str]:
    """Yields percentiles that fall, and TTFTs that are longer than the latencies they are part of."""
    for times in (run.ttft, run.tpot, run.gaps, run.e2el):
        order = [times.percentiles[percent] for percent in sorted(times.percentiles)]
        for lower, upper in pairwise(order):
            if lower.seconds > upper.seconds * (1 + 1e-6):
                yield f"{lower.name} ({lower.seconds:.4g} s) is above {upper.name} ({upper.seconds:.4g} s)"
                break
    pairs = [(run.ttft.mean, run.e2el.mean)]
    pairs += [(run.ttft.percentiles[p], run.e2el.percentiles.get(p)) for p in sorted(run.ttft.percentiles)]
    for part, whole in pairs:
        # A file of two decimals rounds by 5 µs.
        if part and whole and part.seconds > whole.seconds + 1e-5:
            yield f"{part.name} ({part.seconds:.4g} s) is longer than {whole.name} ({whole.seconds:.4g} s)"
            break


def _check_latency(run: Run) -> str | None:
    """Holds TTFT + TPOT × (tokens − 1) against the latency: equal where all answers have one length."""
    ttft, tpot, e2el = run.ttft.mean, run.tpot.mean, run.e2el.mean
    if not (run.drawn and run.drawn.exact and ttft and tpot and e2el):
        return None
    # A first chunk of several tokens, which tools count as one.
    first = _FIRST_TOKENS * run.completed / run.output_tokens
    if abs(run.built_s - e2el.seconds) <= (0.1 + first) * e2el.seconds:
        return None
    return (
        f"{ttft.name} and {tpot.name} make a latency of {run.built_s:.4g} s, but {e2el.name} is "
        f"{e2el.seconds:.4g} s"
    )


def _check_units(run: Run) -> None:
    """Refuses a run whose times do not go together: one of them has another unit than its name says.

    Raises:
        UnusableError: they do not.
    """
    tokens = max(run.output_tokens / run.completed - 1, 0)
    built_s, ttft, stated = run.built_s, run.ttft.typical, run.e2el.typical
    built = f"{run.typical_tpot.name} ({run.typical_tpot.seconds:.4g} s) × {tokens:.4g} tokens"
    if ttft:
        built += f" after {ttft.name} ({ttft.seconds:.4g} s)"
    if stated is not None:
        too_long = built_s > _UNITS_FACTOR * stated.seconds
        # Without a TTFT the latency may well be that much longer: its prefill is unknown.
        too_short = ttft is not None and built_s * _UNITS_FACTOR < stated.seconds
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
    longest_s = run.e2el.longest_s or 2 * latency_s
    busy_s = run.completed * latency_s / run.concurrency + longest_s
    too_idle = run.rate_rps is None and run.duration_s > _IDLE_FACTOR * busy_s
    if too_busy or too_idle:
        raise UnusableError(
            f"mixed units: {built} over the duration ({run.duration_s:.4g} s) keeps {flying:.4g} requests in "
            f"flight, but the concurrency is {run.concurrency}"
        )
