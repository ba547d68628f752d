"""Pure: what one curve serves at one target interactivity, and everything derived from that.

Metered power belongs to a recipe and is not interpolated. At a target between two knots it is taken to lie
between theirs; with the throughput that is interpolated there it gives a range, which is as narrow as the two
recipes' powers are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtpbench_analysis.curves.cost import Economics, joules_per_token, tps_per_mw, usd_per_mtok
from mtpbench_analysis.curves.curve import Measured

TokenKind = Literal["total", "output", "input"]
NoInterval = Literal["not_reached", "single_run", "may_end_below"]
"""Why a cell has no interval: the curve does not reach it, its noise is unknown, or draws end before it."""
State = Literal["measured", "interpolated", "at_least", "not_reached"]

DEFAULT_MAX_GAP = 5.0
"""A ratio over two knots whose throughputs differ by more than this factor is withheld."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An interval says where a value lies with a stated confidence, as far as repeats or time blocks tell."""

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
        wide_gap: the two knots' throughputs differ by more than the comparison's factor.
        interval: of the throughput; what lies between two knots is not in it, only the knots' noise.
        interval_basis: `repeats`, or `blocks` (time blocks of a single run), or None.
        no_interval: the reason where there is none.
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
    interval_basis: str | None = None
    no_interval: NoInterval | None = None
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
    def envelope(self) -> tuple[float, float] | None:
        """Returns the throughputs that a falling curve can have here: its knots'; None where not reached."""
        if self.tput_tps_per_gpu is None:
            return None
        if self.state != "interpolated" or self.lower is None or self.upper is None:
            return self.tput_tps_per_gpu, self.tput_tps_per_gpu
        return self.upper.y, self.lower.y

    @property
    def output_share(self) -> float | None:
        """Returns the output tokens / all tokens here, between the knots' by distance; None where a knot has
        none.
        """
        shares = [
            None if knot.mean.output_tps_per_gpu is None else knot.mean.output_tps_per_gpu / knot.y
            for knot in self.knots
        ]
        if not shares or None in shares or self.tput_tps_per_gpu is None:
            return None
        if len(shares) == 1 or self.gap_tps is None or self.lower is None:
            return shares[0]
        way = (self.target_tps - self.lower.x) / self.gap_tps
        low, high = (share for share in shares if share is not None)
        return low + (high - low) * way

    @property
    def output_tps_per_gpu(self) -> float | None:
        """Returns the output tokens/s over all GPUs."""
        return _times(self.tput_tps_per_gpu, self.output_share)

    @property
    def input_tps_per_gpu(self) -> float | None:
        """Returns the input tokens/s over all GPUs."""
        share = self.output_share
        return None if share is None else _times(self.tput_tps_per_gpu, 1 - share)

    def usd_per_m(self, kind: TokenKind, tier: str | None = None) -> float | None:
        """Returns the dollars for a million tokens of one kind, all of the deployment's cost put on them.

        Args:
            kind: `total`, `output` or `input`.
            tier: whose price; None for the comparison's.
        """
        rates = {
            "total": self.tput_tps_per_gpu,
            "output": self.output_tps_per_gpu,
            "input": self.input_tps_per_gpu,
        }
        price = None if self.economics is None else self.economics.price(tier)
        rate = rates[kind]
        return None if price is None or not rate else usd_per_mtok(rate, price)

    @property
    def usd_per_mtok(self) -> float | None:
        """Returns the dollars for a million tokens, input and output together, at the comparison's price."""
        return self.usd_per_m("total")

    @property
    def tps_per_mw(self) -> float | None:
        """Returns the tokens/s of a provisioned megawatt."""
        kw = None if self.economics is None else self.economics.hardware.power_kw_per_gpu
        tput = self.tput_tps_per_gpu
        return None if kw is None or tput is None else tps_per_mw(tput, kw)

    @property
    def joules_per_token(self) -> float | None:
        """Returns the joules for a token, from the provisioned power, not from a meter."""
        kw = None if self.economics is None else self.economics.hardware.power_kw_per_gpu
        tput = self.tput_tps_per_gpu
        return None if kw is None or tput is None else joules_per_token(tput, kw * 1000)

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
        if self.tput_tps_per_gpu is None or not watts or len(watts) < len(powers) or len(self.meters) > 1:
            return None
        return Span(low=min(watts), high=max(watts))

    @property
    def metered_joules_per_token(self) -> Span | None:
        """Returns the metered joules for a token, input and output together."""
        return self._metered_joules(self.tput_tps_per_gpu)

    @property
    def metered_joules_per_output_token(self) -> Span | None:
        """Returns all metered joules put on the output tokens."""
        return self._metered_joules(self.output_tps_per_gpu)

    @property
    def metered_tps_per_mw(self) -> Span | None:
        """Returns the tokens/s of a megawatt drawn by GPUs, without cooling, network and power supplies."""
        power, tput = self.metered_w_per_gpu, self.tput_tps_per_gpu
        if power is None or tput is None:
            return None
        return Span(low=tps_per_mw(tput, power.high / 1000), high=tps_per_mw(tput, power.low / 1000))

    def _metered_joules(self, rate_tps_per_gpu: float | None) -> Span | None:
        power = self.metered_w_per_gpu
        if power is None or not rate_tps_per_gpu:
            return None
        low, high = (joules_per_token(rate_tps_per_gpu, watts) for watts in (power.low, power.high))
        return Span(low=low, high=high)


def _times(value: float | None, share: float | None) -> float | None:
    return None if value is None or share is None else value * share
