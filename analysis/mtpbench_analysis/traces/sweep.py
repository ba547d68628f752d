"""Everything that a results folder holds of its points beyond their figures, read once for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtpbench.store import StoredPoint, read_sweep
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.results import to_curve_point
from mtpbench_analysis.traces.latency import RequestTrace, request_trace
from mtpbench_analysis.traces.power import PowerTrace, power_trace, thin

POWER_VALUES = 120


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTrace:
    """One stored point with what its figures were made of.

    Args:
        point: the point of a curve that it became, equal to the one that `read_results` makes: this is how a
            comparison finds it, whatever folder it came from. None where it has no figures.
        stored: its records.
        requests: latencies of its requests.
        power: over time, at most `POWER_VALUES` values, each the mean over its share of the time.
    """

    point: CurvePoint | None
    stored: StoredPoint
    requests: RequestTrace
    power: PowerTrace


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepTrace:
    """The points of one results folder in the order in which they were measured.

    Args:
        source: the folder.
        points: every stored one, valid or not.
        missing: planned ids that nobody has measured.
        damaged: ids whose files can't be read, and why.
    """

    source: str
    points: tuple[PointTrace, ...]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_traces(sources: Sequence[Path]) -> tuple[SweepTrace, ...]:
    """The traces of those sources that are results folders; files of other tools have none.

    Raises:
        InputError, SchemaError, StoreError: as `read_results` says.
    """
    return tuple(_read_folder(path) for path in sources if path.is_dir())


def narrow_traces(traces: Sequence[SweepTrace], kept: Iterable[CurvePoint]) -> tuple[SweepTrace, ...]:
    """Only the traces of some points; those without figures stay out, as nothing says that they are meant."""
    wanted = set(kept)
    return tuple(
        replace(sweep, points=tuple(one for one in sweep.points if one.point in wanted)) for sweep in traces
    )


def _read_folder(directory: Path) -> SweepTrace:
    sweep = read_sweep(directory)
    return SweepTrace(
        source=str(directory),
        points=tuple(
            read_trace(stored)
            for stored in sorted(sweep.points, key=lambda stored: stored.provenance.started_utc)
        ),
        missing=sweep.missing,
        damaged=sweep.damaged,
    )


def read_trace(stored: StoredPoint) -> PointTrace:
    """The trace of one stored point; files of it that can't be read give reasons, not errors."""
    made = to_curve_point(stored)
    power = power_trace(stored)
    times_s, power_w = thin(power.times_s, power.power_w, POWER_VALUES)
    return PointTrace(
        point=made if isinstance(made, CurvePoint) else None,
        stored=stored,
        requests=request_trace(stored),
        power=replace(power, times_s=times_s, power_w=power_w),
    )
