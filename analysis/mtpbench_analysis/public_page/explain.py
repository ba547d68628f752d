"""Pure: the page's numbers beside the honest numbers, with the reasons why they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtpbench_analysis.compare import Settings, compare, read_curves
from mtpbench_analysis.curves.cells import Cell
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.curve import Curve, Grouping, build_curves
from mtpbench_analysis.curves.ratios import Ratio
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric_table import VIEWS
from mtpbench_analysis.pairing import pair
from mtpbench_analysis.public_page.method import (
    Method,
    PageCell,
    PageSide,
    build_sides,
    default_targets,
    read_side,
)
from mtpbench_analysis.public_page.reasons import (
    AGREES,
    PageReason,
    carried,
    concurrency_reasons,
    cost_reasons,
    number_of,
    percent_reason,
    same,
    throughput_reasons,
    withheld_reason,
)

_NO_VALID_POINT = PageReason(code="invalid_knot", text="the honest method has no valid point of this side")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedNumber:
    """One number of the page beside the honest number.

    Args:
        metric: `tput_tps_per_gpu`, `usd_per_mtok`, `tps_per_mw`, `concurrency`, or, for both sides together,
            `throughput_claim` (page: percent more; honest: ratio) and `cost_claim` (page: percent cheaper;
            honest: share of the cost that is saved). A claim's percentage is that of the better side.
        sides: the label of the page's side, or of both.
        curve: the honest curve, or both; one side of the page may be several curves.
        page_value, honest_value: the two numbers; None where one is missing.
        honest_state: a cell's state; `recipes` for a concurrency, which is never interpolated;
            `no_valid_point`; `exact`,
            `at_least`, `at_most`, `best_points`, `withheld` or `not_reached` for a claim.
        cell, ratio: the honest cell or ratio; one of them is None.
        page_cells: the page's cell; two for a claim.
    """

    target_tps: float
    metric: str
    sides: tuple[str, ...]
    curve: str
    page_value: float | None
    honest_value: float | None
    honest_state: str
    reasons: tuple[PageReason, ...]
    page_cells: tuple[PageCell, ...]
    cell: Cell | None = None
    ratio: Ratio | None = None

    @property
    def side(self) -> str:
        """Returns the label of the page's side (`Off`), or of both (`MTP / Off`)."""
        return " / ".join(self.sides)

    @property
    def agrees(self) -> bool:
        """Whether both numbers are the same, without reservation."""
        return self.reasons == (AGREES,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """A table of the page, of two sides or one, with its numbers explained.

    Args:
        method: the form of the page.
        sides: the other side first, then the baseline's, as in `MTP / Off`.
        targets_tps: the target interactivities.
        own_targets: whether the targets are the page's default ones.
        page: the page's cells, by side and target.
        numbers: the explained numbers, by target, metric, side and curve.
        economics: the price and power constants, or None.
    """

    method: Method
    sides: tuple[PageSide, ...]
    targets_tps: tuple[float, ...]
    own_targets: bool
    page: tuple[tuple[PageCell, ...], ...]
    numbers: tuple[ExplainedNumber, ...]
    economics: Economics | None

    @property
    def simulated(self) -> bool:
        """Whether any point was simulated."""
        return any(point.simulated for side in self.sides for point in side.points)


@dataclass(frozen=True, kw_only=True, slots=True)
class _HonestReading:
    """The honest reading of a table of the page: each side's curves with their cells, and paired ratios."""

    curves: tuple[tuple[tuple[Curve, tuple[Cell, ...]], ...], ...]
    ratios: tuple[tuple[Curve, Curve, tuple[Ratio, ...]], ...]


def explain_points(
    points: Sequence[CurvePoint],
    settings_of: Callable[[Curve], Settings],
    method: Method,
    baseline_arm: str = "off",
    grouping: Grouping | None = None,
) -> tuple[Explanation, ...]:
    """Returns an explanation of each workload and arm; one side alone is explained without ratios.

    Args:
        points: all points, invalid ones too (the page has them).
        settings_of: the honest comparison's settings for a curve; without targets in them, the page's default
            targets are used.
        method: the form of the page.
        baseline_arm: the name of the baseline's arm.
        grouping: the fields that make one honest curve.
    """
    sides = build_sides(points)
    groups: dict[tuple[Any, ...], list[PageSide]] = {}
    for side in sides:
        groups.setdefault(side.workload_key, []).append(side)
    explanations: list[Explanation] = []
    for group in groups.values():
        base = [side for side in group if side.arm == baseline_arm]
        others = [side for side in group if side.arm != baseline_arm]
        explanations += [
            _explain(table_sides, settings_of, method, baseline_arm, grouping)
            for table_sides in [(other, *base) for other in others] or [tuple(base)]
        ]
    return tuple(explanations)


def _explain(
    sides: tuple[PageSide, ...],
    settings_of: Callable[[Curve], Settings],
    method: Method,
    baseline_arm: str,
    grouping: Grouping | None,
) -> Explanation:
    curves = build_curves([point for side in sides for point in side.points], grouping)
    settings = settings_of(curves[0]) if curves else Settings()
    own_targets = not settings.targets_tps
    targets = default_targets(sides) if own_targets else settings.targets_tps
    settings = replace(settings, targets_tps=targets, strict=False)
    page = tuple(
        tuple(read_side(side, target, settings.economics, method) for target in targets) for side in sides
    )
    honest = _read_honestly(sides, curves, settings, baseline_arm)
    return Explanation(
        method=method,
        sides=sides,
        targets_tps=targets,
        own_targets=own_targets,
        page=page,
        numbers=tuple(
            number for index in range(len(targets)) for number in _at_target(sides, page, honest, index)
        ),
        economics=settings.economics,
    )


def _read_honestly(
    sides: Sequence[PageSide], curves: Sequence[Curve], settings: Settings, baseline_arm: str
) -> _HonestReading:
    readers = [(reader.curve, reader.cells(settings.targets_tps)) for reader in read_curves(curves, settings)]
    by_side = tuple(tuple(item for item in readers if item[0].arm == side.arm) for side in sides)
    labels = {id(curve.measured): curve for curve in curves}
    ratios = []
    for base, others in pair(list(curves), baseline_arm)[0]:
        comparison = compare(base, others, settings)
        for i, other in enumerate(others):
            column = tuple(row.ratios[i] for row in comparison.rows)
            ratios.append((labels[id(other.measured)], labels[id(base.measured)], column))
    return _HonestReading(curves=by_side, ratios=tuple(ratios))


def _at_target(
    sides: Sequence[PageSide], page: Sequence[Sequence[PageCell]], honest: _HonestReading, index: int
) -> Iterator[ExplainedNumber]:
    reasons_of: dict[tuple[str, str], tuple[PageReason, ...]] = {}
    numbers: list[ExplainedNumber] = []
    for side, column, curves in zip(sides, page, honest.curves, strict=True):
        page_cell = column[index]
        for curve, cells in curves:
            cell = cells[index]
            reasons = throughput_reasons(side, page_cell, curve, cell)
            costs = cost_reasons(page_cell, reasons, cell)
            reasons_of["throughput", curve.label], reasons_of["cost", curve.label] = reasons, costs
            numbers += _explain_side(side, page_cell, curve.label, cell, reasons, costs)
        if not curves:
            reasons = (_NO_VALID_POINT,)
            numbers += _explain_side(side, page_cell, side.label, None, reasons, reasons)
    # Both sides of a metric stand below each other, as on the page.
    yield from sorted(numbers, key=lambda number: VIEWS["public_page"].index(number.metric))
    if len(sides) == 2:
        for other, base, ratios in honest.ratios:
            yield from _claims(
                sides, (page[0][index], page[1][index]), (other, base), ratios[index], reasons_of
            )


def _explain_side(
    side: PageSide,
    page_cell: PageCell,
    curve: str,
    cell: Cell | None,
    tput_reasons: tuple[PageReason, ...],
    usd_reasons: tuple[PageReason, ...],
) -> list[ExplainedNumber]:
    """Returns the explained numbers of a side at a target, beside one honest curve's cell."""
    values: list[tuple[str, float | None, float | None, tuple[PageReason, ...]]] = [
        (metric, getattr(page_cell, metric), number_of(getattr(cell, metric, None)), reasons)
        for metric, reasons in (
            ("tput_tps_per_gpu", tput_reasons),
            ("usd_per_mtok", usd_reasons),
            ("tps_per_mw", tput_reasons),
        )
    ]
    values.append(("concurrency", page_cell.concurrency, None, ()))
    numbers = []
    for metric, page_value, honest_value, reasons in values:
        if page_value is None:
            continue
        state: str = cell.state if cell else "no_valid_point"
        if metric == "concurrency":
            state, reasons = "recipes" if cell else state, concurrency_reasons(side, page_cell, tput_reasons)
            if cell and cell.state == "measured" and len(cell.knots[0].runs) == 1:
                honest_value = cell.knots[0].mean.concurrency
        numbers.append(
            ExplainedNumber(
                target_tps=page_cell.target_tps,
                metric=metric,
                sides=(side.label,),
                curve=curve,
                page_value=page_value,
                honest_value=honest_value,
                honest_state=state,
                reasons=reasons,
                page_cells=(page_cell,),
                cell=cell,
            )
        )
    return numbers


def _claims(
    sides: Sequence[PageSide],
    page_cells: tuple[PageCell, PageCell],
    curves: tuple[Curve, Curve],
    ratio: Ratio,
    reasons_of: dict[tuple[str, str], tuple[PageReason, ...]],
) -> Iterator[ExplainedNumber]:
    labels = sides[0].label, sides[1].label
    state: str = ratio.bound if ratio.value is not None else "not_reached"
    if ratio.withheld is not None:
        state = "withheld"
    tputs = page_cells[0].tput_tps_per_gpu, page_cells[1].tput_tps_per_gpu
    claims: list[tuple[str, float, float | None, list[PageReason | None]]] = [
        ("throughput_claim", max(tputs) / min(tputs), ratio.value, [])
    ]
    costs = page_cells[0].usd_per_mtok, page_cells[1].usd_per_mtok
    if costs[0] is not None and costs[1] is not None:
        both = costs[0], costs[1]
        claims.append(("cost_claim", max(both) / min(both), ratio.lower_cost, [percent_reason(both, labels)]))
    for metric, high_over_low, honest_value, reasons in claims:
        kind = metric.removesuffix("_claim")
        reasons.append(
            carried([(label, reasons_of[kind, c.label]) for label, c in zip(labels, curves, strict=True)])
        )
        if ratio.withheld is not None:
            reasons.append(withheld_reason(ratio.withheld))
        all_reasons = tuple(reason for reason in reasons if reason is not None)
        if not all_reasons and same(tputs[0] / tputs[1], ratio.value):
            all_reasons = (AGREES,)
        yield ExplainedNumber(
            target_tps=page_cells[0].target_tps,
            metric=metric,
            sides=tuple(labels),
            curve=" / ".join(curve.label for curve in curves),
            page_value=(high_over_low - 1) * 100,
            honest_value=honest_value,
            honest_state=state,
            reasons=all_reasons,
            page_cells=page_cells,
            ratio=ratio,
        )
