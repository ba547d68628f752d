"""Pure: metered energy at a target interactivity, as what the knots' power allows.

Power belongs to a recipe and is not interpolated. At a target between two knots it is taken to lie between
theirs; divided by the throughput that is interpolated there it gives a range, which is as narrow as the two
recipes' powers are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mtpbench_analysis.curves.cells import Cell
from mtpbench_analysis.curves.cost import joules_per_token as joules
from mtpbench_analysis.curves.cost import tps_per_mw as per_mw


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The lowest and the highest value that something can have."""

    low: float
    high: float


def power_w_per_gpu(cell: Cell) -> Span | None:
    """The metered power of one GPU; None where a knot has none, or the knots were metered differently."""
    powers = [knot.mean.power_w_per_gpu for knot in cell.knots]
    known = [power for power in powers if power is not None]
    if cell.tput_tps_per_gpu is None or not known or len(known) < len(powers) or len(sources(cell)) > 1:
        return None
    return Span(low=min(known), high=max(known))


def joules_per_token(cell: Cell) -> Span | None:
    """Metered joules for a token, input and output together."""
    return _over(cell, cell.tput_tps_per_gpu)


def joules_per_output_token(cell: Cell) -> Span | None:
    """All metered joules put on the output tokens."""
    return _over(cell, cell.output_tps_per_gpu)


def tps_per_mw(cell: Cell) -> Span | None:
    """Tokens/s of a megawatt that the GPUs draw: no cooling, no network, no power supplies in it."""
    power, tput = power_w_per_gpu(cell), cell.tput_tps_per_gpu
    if power is None or tput is None:
        return None
    return Span(low=per_mw(tput, power.high / 1000), high=per_mw(tput, power.low / 1000))


def energy_ratio(cell: Cell, base: Cell) -> Span | None:
    """Joules for an output token over the baseline's; None where one side has none, or is hardly known."""
    ours, theirs = joules_per_output_token(cell), joules_per_output_token(base)
    if ours is None or theirs is None or cell.wide_gap or base.wide_gap or sources(cell) != sources(base):
        return None
    return Span(low=ours.low / theirs.high, high=ours.high / theirs.low)


def sources(cell: Cell) -> frozenset[str | None]:
    """How the cell's knots were metered."""
    return frozenset(knot.mean.power_source for knot in cell.knots)


def show_span(span: Span | None, show: Callable[[float | None], str]) -> str:
    """`2.10 to 2.31`; one figure where both read alike."""
    if span is None:
        return show(None)
    low, high = show(span.low), show(span.high)
    return low if low == high else f"{low} to {high}"


def _over(cell: Cell, rate_tps_per_gpu: float | None) -> Span | None:
    power = power_w_per_gpu(cell)
    if power is None or not rate_tps_per_gpu:
        return None
    return Span(low=joules(rate_tps_per_gpu, power.low), high=joules(rate_tps_per_gpu, power.high))
