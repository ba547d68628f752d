"""Pure: dollars, megawatts and joules, all derived from throughput and the dated hardware constants.

Nothing here is interpolated on its own: a cost that is, contradicts the throughput beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import Hardware

DEFAULT_TIER = "hyperscaler"


def usd_per_mtok(tput_tps_per_gpu: float, usd_per_gpu_h: float) -> float:
    """Dollars for a million tokens (input and output together): $/GPU/h × 1e6 / (3600 × tok/s/GPU)."""
    return usd_per_gpu_h * 1e6 / (3600 * tput_tps_per_gpu)


def tps_per_mw(tput_tps_per_gpu: float, power_kw_per_gpu: float) -> float:
    """Tokens per second that a provisioned megawatt serves: tok/s/GPU × 1000 / kW per GPU."""
    return tput_tps_per_gpu * 1000 / power_kw_per_gpu


def joules_per_token(tput_tps_per_gpu: float, power_w_per_gpu: float) -> float:
    """Joules for a token: W per GPU / (tok/s/GPU)."""
    return power_w_per_gpu / tput_tps_per_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Economics:
    """The constants of one comparison: which hardware, of which date, at whose price.

    Hardware without any price has an unknown one, whatever the tier.

    Raises:
        InputError: the hardware has prices, but none of that tier; the message lists its tiers.
    """

    hardware: Hardware
    tier: str = DEFAULT_TIER

    def __post_init__(self) -> None:
        if self.hardware.usd_per_gpu_h and self.tier not in self.hardware.usd_per_gpu_h:
            known = ", ".join(self.hardware.usd_per_gpu_h)
            raise InputError(f"{self.hardware.name} has no price of tier {self.tier!r}; tiers: {known}")

    @property
    def usd_per_gpu_h(self) -> float | None:
        """The price of one GPU for one hour; None where it is unknown."""
        return self.hardware.usd_per_gpu_h.get(self.tier)

    @property
    def label(self) -> str:
        """What the figures rest on, in one line; what is unknown, with the reason."""
        usd, kw = self.usd_per_gpu_h, self.hardware.power_kw_per_gpu
        price = "at an unknown price" if usd is None else f"at ${usd:g} per GPU-hour ({self.tier})"
        power = "unknown power" if kw is None else f"{kw:g} kW"
        label = (
            f"{self.hardware.gpu} {price}, {power} provisioned per GPU, constants of "
            f"{self.hardware.constants_date}"
        )
        return label if usd is not None and kw is not None else f"{label} ({self.hardware.source})"


def resolve_name(name: str) -> str:
    """The constants' name for what a source calls the hardware: `gb200` is `gb200-nvl72`.

    A name without constants comes back unchanged.
    """
    lowered = name.lower()
    if lowered in hardware.names():
        return lowered
    longer = [known for known in hardware.names() if known.split("-")[0] == lowered]
    return longer[0] if len(longer) == 1 else lowered


def has_constants(name: str) -> bool:
    """Whether there are constants for what a source calls the hardware (MI325X has none)."""
    return resolve_name(name) in hardware.names()


def find_economics(name: str, date: str | None = None, tier: str = DEFAULT_TIER) -> Economics:
    """The constants of a hardware name (short or long), the newest or those of `date`.

    Raises:
        InputError: the name, the date or the tier is unknown; the message lists the known ones.
    """
    return Economics(hardware=hardware.lookup(resolve_name(name), date), tier=tier)
