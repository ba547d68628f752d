"""Pure: dollars, megawatts and joules, all derived from throughput and the dated hardware constants.

Nothing here is interpolated on its own: a cost that is, contradicts the throughput beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import Hardware

DEFAULT_TIER = "hyperscaler"
NO_PRICE = "the hardware's price is unknown"
YOUR_PRICE = "your price"
"""The tier of the reader's own price."""


def usd_per_mtok(tput_tps_per_gpu: float, usd_per_gpu_h: float) -> float:
    """Returns the dollars for a million tokens (input and output together): $/GPU/h × 1e6 / (3600 ×
    tok/s/GPU).
    """
    return usd_per_gpu_h * 1e6 / (3600 * tput_tps_per_gpu)


def tps_per_mw(tput_tps_per_gpu: float, power_kw_per_gpu: float) -> float:
    """Returns the tokens per second that a provisioned megawatt serves: tok/s/GPU × 1000 / kW per GPU."""
    return tput_tps_per_gpu * 1000 / power_kw_per_gpu


def joules_per_token(tput_tps_per_gpu: float, power_w_per_gpu: float) -> float:
    """Returns the joules for a token: W per GPU / (tok/s/GPU)."""
    return power_w_per_gpu / tput_tps_per_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Economics:
    """The constants of one comparison: which hardware, of which date, at whose price.

    Hardware without any price has an unknown one, whatever the tier.

    Args:
        hardware: the constants, with the reader's own price and power in place of theirs.
        tier: whose price.
        constants_file: the reader's own file that they come from; None for the built-in ones.
        power_asked: whether the reader named the power.

    Raises:
        InputError: the hardware has prices, but none of that tier; the message lists its tiers.
    """

    hardware: Hardware
    tier: str = DEFAULT_TIER
    constants_file: str | None = None
    power_asked: bool = False

    def __post_init__(self) -> None:
        if self.tiers and self.tier not in self.tiers:
            tiers = ", ".join(self.tiers)
            raise InputError(
                f"{self.hardware.name} has no price of tier {self.tier!r}; tiers: {tiers} (--tier)"
            )

    @property
    def tiers(self) -> tuple[str, ...]:
        """Returns whose prices the constants name, the reader's own included; empty where they have none."""
        return tuple(self.hardware.usd_per_gpu_h)

    @property
    def usd_per_gpu_h(self) -> float | None:
        """Returns the price of one GPU for one hour; None where it is unknown."""
        return self.hardware.usd_per_gpu_h.get(self.tier)

    def price(self, tier: str | None = None) -> float | None:
        """Returns the price of one GPU-hour of a tier; of the comparison's own where none is named."""
        return self.hardware.usd_per_gpu_h.get(tier or self.tier)

    def with_price(self, usd_per_gpu_h: float) -> Economics:
        """Returns these constants at the reader's price, which becomes the tier `your price`; the others
        stay.

        Raises:
            InputError: it is not a number above 0.
        """
        _check_positive("--usd-per-gpu-h", usd_per_gpu_h, "dollars for a GPU-hour")
        prices = {**self.hardware.usd_per_gpu_h, YOUR_PRICE: float(usd_per_gpu_h)}
        return replace(self, hardware=replace(self.hardware, usd_per_gpu_h=prices), tier=YOUR_PRICE)

    def with_power(self, power_kw_per_gpu: float) -> Economics:
        """Returns these constants at the reader's provisioned power per GPU.

        Raises:
            InputError: it is not a number above 0.
        """
        _check_positive("--kw-per-gpu", power_kw_per_gpu, "kilowatts of a GPU, all-in,")
        return replace(
            self, hardware=replace(self.hardware, power_kw_per_gpu=float(power_kw_per_gpu)), power_asked=True
        )

    @property
    def label(self) -> str:
        """Returns in one line what the figures rest on; what is unknown, with the reason."""
        label = (
            f"{self.hardware.gpu} {self._price_label}, {self._power_label}, constants of "
            f"{self.hardware.constants_date}"
        )
        if not self.tiers or self.hardware.power_kw_per_gpu is None:
            return f"{label} ({self.hardware.source})"
        return f"{label} from {self.constants_file}" if self.constants_file else label

    @property
    def no_price(self) -> str | None:
        """Returns why the price is unknown; None where it is known."""
        if self.usd_per_gpu_h is not None:
            return None
        reason = self.hardware.unpriced.get(self.tier)
        return NO_PRICE if reason is None else f"{self.tier}: {reason}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """Returns what the source says of the price and the power that are used here."""
        return (*self._price_caveats, *self._power_caveats)

    @property
    def _price_caveats(self) -> tuple[str, ...]:
        if self.usd_per_gpu_h is None:
            return tuple(filter(None, (self.no_price,)))
        about = () if self.tier == YOUR_PRICE else ("price", self.tier)
        return tuple(self.hardware.caveats[key] for key in about if key in self.hardware.caveats)

    @property
    def _power_caveats(self) -> tuple[str, ...]:
        own = "asked for with --kw-per-gpu" if self.power_asked else self.hardware.caveats.get("power")
        return () if own is None or self.hardware.power_kw_per_gpu is None else (own,)

    @property
    def _price_label(self) -> str:
        usd = self.usd_per_gpu_h
        if usd is None:
            return f"at an unknown price ({self.no_price})" if self.tiers else "at an unknown price"
        whose = "your price, asked for with --usd-per-gpu-h" if self.tier == YOUR_PRICE else self.tier
        return f"at {price_text(usd)} per GPU-hour ({'; '.join((whose, *self._price_caveats))})"

    @property
    def _power_label(self) -> str:
        kw = self.hardware.power_kw_per_gpu
        said = f" ({self._power_caveats[0]})" if self._power_caveats else ""
        return f"{'unknown power' if kw is None else f'{kw:g} kW'} provisioned per GPU{said}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoConstants:
    """No constants: price and power are unknown of hardware whose name is None where it was not recorded."""

    hardware: str | None

    @property
    def label(self) -> str:
        """Returns that in one line, without its full stop."""
        if self.hardware is None:
            return "The source does not name its hardware: no cost and no megawatts (--hardware names it)"
        return f"There are no price and power constants for {self.hardware}: no cost and no megawatts"


def price_text(usd: float) -> str:
    """Returns a price with its cents: `$3.30`, `$2.652`."""
    return f"${usd:.2f}" if math.isclose(round(usd, 2), usd) else f"${usd:g}"


def resolve_name(name: str, constants: str | None = None) -> str:
    """Returns the constants' name for what a source calls the hardware: `gb200` is `gb200-nvl72`.

    A name without constants comes back unchanged.

    Args:
        name: as the source has it.
        constants: None, a date or a file, as in `mtpbench.hardware`.
    """
    lowered = name.lower()
    names = hardware.names(constants)
    if lowered in names:
        return lowered
    longer = [full for full in names if full.split("-")[0] == lowered]
    return longer[0] if len(longer) == 1 else lowered


def has_constants(name: str, constants: str | None = None) -> bool:
    """Returns whether there are constants for what a source calls the hardware (A100 has none built in)."""
    return resolve_name(name, constants) in hardware.names(constants)


def find_economics(name: str, constants: str | None = None, tier: str = DEFAULT_TIER) -> Economics:
    """Returns the constants of a hardware name (short or long).

    Args:
        name: such as `gb200` or `gb200-nvl72`.
        constants: None for the newest, a date (`2026-05`), or the path of a YAML file of the same form as
            the built-in one.
        tier: whose price.

    Raises:
        InputError: the name, the date or the tier is unknown, the message lists the known ones; or the file
            can't be used.
    """
    return Economics(
        hardware=hardware.lookup(resolve_name(name, constants), constants),
        tier=tier,
        constants_file=hardware.constants_file(constants),
    )


def _check_positive(option: str, value: float, what: str) -> None:
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{option} {value:g}: {what} above 0 are needed")
