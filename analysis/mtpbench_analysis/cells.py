"""Pure: one curve read at one target interactivity, with what the number rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mtpbench_analysis.cost import Economics, joules_per_token, tps_per_mw, usd_per_mtok
from mtpbench_analysis.curves import Curve, Measured
from mtpbench_analysis.interpolate import interpolate

State = Literal["measured", "interpolated", "at_least", "not_reached"]

DEFAULT_MAX_GAP = 5.0
"""A ratio over two knots whose throughputs differ by more than this factor is withheld."""

_SAME_TPS = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What one curve serves at one target interactivity.

    Args:
        state: `measured` (the target is a knot), `interpolated` (between `lower` and `upper`), `at_least`
            (the target lies below the front: its best point, which is `upper`, meets it too), or
            `not_reached` (the target lies above the front, which ends at `lower`: no number).
        runs_at_tps: the interactivity that the number really belongs to; None where not reached.
        wide_gap: the two knots' throughputs differ by more than the comparison's factor.
        joules_per_token: from the provisioned power, not from a meter.
    """

    target_tps: float
    state: State
    tput_tps_per_gpu: float | None
    runs_at_tps: float | None
    lower: Measured | None
    upper: Measured | None
    wide_gap: bool = False
    usd_per_mtok: float | None = None
    tps_per_mw: float | None = None
    joules_per_token: float | None = None

    @property
    def knots(self) -> tuple[Measured, ...]:
        """The measured points that the cell rests on, or, where it has no number, ends at."""
        found = [knot for knot in (self.lower, self.upper) if knot is not None]
        return (found[0],) if len(found) == 2 and found[0] is found[1] else tuple(found)

    @property
    def gap_tps(self) -> float | None:
        """Distance of the two knots in tok/s/user; None unless interpolated."""
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return None
        return self.upper.x - self.lower.x

    @property
    def knot_ratio(self) -> float | None:
        """Throughput of the lower knot over that of the upper one (above 1); None unless interpolated."""
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return None
        return self.lower.y / self.upper.y


def read_cells(
    curve: Curve, targets: Sequence[float], economics: Economics | None, max_gap: float = DEFAULT_MAX_GAP
) -> tuple[Cell, ...]:
    """The curve at each target; throughput is interpolated, everything else derived from it."""
    return tuple(_read(curve, target, economics, max_gap) for target in targets)


def _read(curve: Curve, target: float, economics: Economics | None, max_gap: float) -> Cell:
    front = curve.front
    for knot in front:
        if abs(knot.x - target) <= _SAME_TPS * target:
            return _cell("measured", target, (knot.y, knot.x), (knot, knot), economics)
    if target < front[0].x:
        best = front[0]
        return _cell("at_least", target, (best.y, best.x), (None, best), economics)
    if target > front[-1].x:
        return _cell("not_reached", target, (None, None), (front[-1], None), economics)
    tput = float(interpolate([k.x for k in front], [k.y for k in front], [target])[0])
    lower = max((knot for knot in front if knot.x < target), key=lambda knot: knot.x)
    upper = min((knot for knot in front if knot.x > target), key=lambda knot: knot.x)
    wide = lower.y / upper.y > max_gap
    return _cell("interpolated", target, (tput, target), (lower, upper), economics, wide)


def _cell(
    state: State,
    target: float,
    value: tuple[float | None, float | None],
    knots: tuple[Measured | None, Measured | None],
    economics: Economics | None,
    wide: bool = False,
) -> Cell:
    tput, runs_at = value
    usd = mw = joules = None
    if economics is not None and tput is not None:
        price, kw = economics.usd_per_gpu_h, economics.hardware.power_kw_per_gpu
        usd = None if price is None else usd_per_mtok(tput, price)
        if kw is not None:
            mw, joules = tps_per_mw(tput, kw), joules_per_token(tput, kw * 1000)
    return Cell(
        target_tps=target,
        state=state,
        tput_tps_per_gpu=tput,
        runs_at_tps=runs_at,
        lower=knots[0],
        upper=knots[1],
        wide_gap=wide,
        usd_per_mtok=usd,
        tps_per_mw=mw,
        joules_per_token=joules,
    )
