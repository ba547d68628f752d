"""Pure: what one curve serves at one target interactivity, and everything derived from that.

Metered power belongs to a recipe and is not interpolated. At a target between two knots it is taken to lie
between theirs; with the throughputs that the curve may have there it gives a range. Across a wide gap nothing
is known but the throughputs of its two knots, so every figure is a range over them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mtpbench_analysis.curves.cost import Economics, joules_per_token, tps_per_mw, usd_per_mtok
from mtpbench_analysis.curves.curve import Measured

TokenKind = Literal["total", "output", "input"]
NoInterval = Literal["not_reached", "wide_gap", "single_run", "may_end_below"]
"""Why a cell has no interval: the curve does not reach it, only a range is known, nothing tells its noise, or
draws end before it."""
Held = Literal["repeats", "blocks", "starts", "assumed_starts", "shape"]
"""What an interval holds: the noise of runs, by repeats or time blocks, that of server starts, by several of
them or as assumed, and how far a curve may run from its spline."""
State = Literal["measured", "interpolated", "at_least", "not_reached"]

DEFAULT_MAX_GAP = 5.0
"""A ratio over two knots whose throughputs differ by more than this factor is withheld."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An interval says where a value lies with a stated confidence, by what a cell's `held` names."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A span has the lowest and the highest value that a figure can have."""

    low: float
    high: float

    def text(self, show: Callable[[float], str]) -> str:
        """Returns `2.10 to 2.31`; one figure where both read alike."""
        low, high = show(self.low), show(self.high)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell says what one curve serves at one target interactivity.

    Args:
        state: `measured` (the target is a knot), `interpolated` (between `lower` and `upper`), `at_least`
            (the target lies below the front: its best point, which is `upper`, meets it too), or
            `not_reached` (the target lies above the front, which ends at `lower`: no number).
        runs_at_tps: the interactivity that the number really belongs to; None where not reached.
        wide_gap: the two knots' throughputs differ by more than the comparison's factor: there is no number,
            only the range between them.
        interval: of the throughput.
        held: what the interval holds.
        no_interval: the reason where there is none.
        metered_joules_per_token: all metered joules over all tokens, the lowest and the highest that the
            interval allows.
        economics: the constants that cost and megawatts are derived with, None where there are none.
    """

    target_tps: float
    state: State
    tput_tps_per_gpu: float | None = None
    runs_at_tps: float | None = None
    lower: Measured | None = None
    upper: Measured | None = None
    wide_gap: bool = False
    interval: Interval | None = None
    held: frozenset[Held] = frozenset()
    no_interval: NoInterval | None = None
    metered_joules_per_token: Span | None = None
    economics: Economics | None = None

    @property
    def knots(self) -> tuple[Measured, ...]:
        """Returns the knots that the cell rests on, or, where it has no number, the end of its front."""
        knots = tuple(knot for knot in (self.lower, self.upper) if knot is not None)
        return knots[:1] if self.lower is self.upper else knots

    @property
    def gap_tps(self) -> float | None:
        """Returns the distance of the two knots in tok/s/user; None unless interpolated."""
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return None
        return self.upper.x - self.lower.x

    @property
    def knot_ratio(self) -> float | None:
        """Returns the throughput of the lower knot over that of the upper one (above 1); None unless
        interpolated.
        """
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return None
        return self.lower.y / self.upper.y

    @property
    def interval_basis(self) -> str | None:
        """Returns what tells the noise of runs: `repeats`, `blocks`, or None."""
        return next((basis for basis in ("blocks", "repeats") if basis in self.held), None)

    @property
    def tput_range(self) -> Span | None:
        """Returns the throughputs between the knots of a wide gap; None where there is a number, or nothing
        is reached.
        """
        if not self.wide_gap or self.lower is None or self.upper is None:
            return None
        return Span(low=self.upper.y, high=self.lower.y)

    @property
    def envelope(self) -> tuple[float, float] | None:
        """Returns the throughputs that a falling curve can have here: its knots'; None where not reached."""
        if self.tput_range is not None:
            return self.tput_range.low, self.tput_range.high
        if self.tput_tps_per_gpu is None:
            return None
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return self.tput_tps_per_gpu, self.tput_tps_per_gpu
        return self.upper.y, self.lower.y

    @property
    def output_share(self) -> float | None:
        """Returns the output tokens / all tokens here, between the knots' by distance; None where a knot has
        none, and over a wide gap, where each knot has its own.
        """
        shares = self._knot_shares
        if not shares or self.tput_tps_per_gpu is None:
            return None
        if len(shares) == 1 or self.gap_tps is None or self.lower is None:
            return shares[0]
        way = (self.target_tps - self.lower.x) / self.gap_tps
        return shares[0] + (shares[1] - shares[0]) * way

    @property
    def _knot_shares(self) -> tuple[float, ...]:
        """Returns the output tokens / all tokens of each knot; nothing where one is unknown."""
        rates = [(knot.mean.output_tps_per_gpu, knot.y) for knot in self.knots]
        shares = tuple(output / total for output, total in rates if output is not None)
        return shares if len(shares) == len(rates) else ()

    @property
    def output_tps_per_gpu(self) -> float | Span | None:
        """Returns the output tokens/s over all GPUs."""
        return self._derived(_times)

    @property
    def input_tps_per_gpu(self) -> float | Span | None:
        """Returns the input tokens/s over all GPUs."""
        return self._derived(lambda tput, share: _times(tput, None if share is None else 1 - share))

    def usd_per_m(self, kind: TokenKind, tier: str | None = None) -> float | Span | None:
        """Returns the dollars for a million tokens of one kind, all of the deployment's cost put on them.

        Args:
            kind: `total`, `output` or `input`.
            tier: whose price; None for the comparison's.
        """
        price = None if self.economics is None else self.economics.price(tier)
        if price is None:
            return None

        def usd(tput: float, output: float | None) -> float | None:
            shares = {"total": 1.0, "output": output, "input": None if output is None else 1 - output}
            share = shares[kind]
            return usd_per_mtok(tput * share, price) if share else None

        return self._derived(usd)

    @property
    def usd_per_mtok(self) -> float | Span | None:
        """Returns the dollars for a million tokens, input and output together, at the comparison's price."""
        return self.usd_per_m("total")

    @property
    def tps_per_mw(self) -> float | Span | None:
        """Returns the tokens/s of a provisioned megawatt."""
        kw = None if self.economics is None else self.economics.hardware.power_kw_per_gpu
        return None if kw is None else self._derived(lambda tput, _: tps_per_mw(tput, kw))

    @property
    def joules_per_token(self) -> float | Span | None:
        """Returns the joules for a token, from the provisioned power, not from a meter."""
        kw = None if self.economics is None else self.economics.hardware.power_kw_per_gpu
        return None if kw is None else self._derived(lambda tput, _: joules_per_token(tput, kw * 1000))

    def _derived(self, derive: Callable[[float, float | None], float | None]) -> float | Span | None:
        """Returns what follows from the throughput and its share of output; over a wide gap from both
        knots'.
        """
        if self.tput_range is None:
            tput = self.tput_tps_per_gpu
            return None if tput is None else derive(tput, self.output_share)
        shares = self._knot_shares or (None, None)
        return span_of(*(derive(knot.y, share) for knot, share in zip(self.knots, shares, strict=True)))

    def at_edges(self) -> tuple[Cell, Cell] | None:
        """Returns the cell with the lowest and with the highest throughput of its interval; None without
        one.
        """
        if self.interval is None:
            return None
        low, high = (replace(self, tput_tps_per_gpu=edge) for edge in (self.interval.low, self.interval.high))
        return low, high

    @property
    def meters(self) -> frozenset[str | None]:
        """Returns how the cell's knots were metered."""
        return frozenset(knot.mean.power_source for knot in self.knots)

    @property
    def metered_w_per_gpu(self) -> Span | None:
        """Returns the metered power of one GPU; None where a knot has none, or the knots were metered
        differently.
        """
        powers = [knot.mean.power_w_per_gpu for knot in self.knots]
        watts = [power for power in powers if power is not None]
        if self.envelope is None or not watts or len(watts) < len(powers) or len(self.meters) > 1:
            return None
        return Span(low=min(watts), high=max(watts))

    @property
    def metered_joules_per_output_token(self) -> Span | None:
        """Returns all metered joules put on the output tokens."""
        joules = self.metered_joules_per_token
        shares = self._knot_shares if self.wide_gap else (self.output_share,)
        known = [share for share in shares if share]
        if joules is None or not known or len(known) < len(shares):
            return None
        return Span(low=joules.low / max(known), high=joules.high / min(known))

    @property
    def metered_tps_per_mw(self) -> Span | None:
        """Returns the tokens/s of a megawatt drawn by GPUs, without cooling, network and power supplies."""
        joules = self.metered_joules_per_token
        return None if joules is None else Span(low=1e6 / joules.high, high=1e6 / joules.low)


def span_of(*values: float | None) -> Span | None:
    """Returns the lowest and the highest of some values; None where one is unknown."""
    known = [value for value in values if value is not None]
    return Span(low=min(known), high=max(known)) if known and len(known) == len(values) else None


def _times(value: float | None, share: float | None) -> float | None:
    return None if value is None or share is None else value * share
