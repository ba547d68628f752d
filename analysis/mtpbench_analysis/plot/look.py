"""Pure: what a reader may choose about a picture, and what would be no picture at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

from mtpbench.errors import InputError

Metric = Literal["total", "output", "input", "cost", "gain"]
Ending = Literal["svg", "png", "pdf"]

DEFAULT_DPI = 150
_MOST_IN, _LEAST_IN = 100.0, 2.0
_MOST_PIXELS = 20_000
_DPIS = (20, 1200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a picture looks.

    Args:
        metric: what the vertical axis says.
        front_only: no points below the front and no invalid ones.
        log: both axes logarithmic.
        loads: the concurrency or rate beside each knot.
        width_in, height_in: of the whole picture; None for what its panels need.
        dpi: pixels in an inch of a PNG.

    Raises:
        InputError: a size is no size, or the picture would have too many pixels.
    """

    metric: Metric = "total"
    front_only: bool = False
    log: bool = False
    loads: bool = False
    width_in: float | None = None
    height_in: float | None = None
    dpi: int = DEFAULT_DPI

    def __post_init__(self) -> None:
        for option, size_in in (("--width", self.width_in), ("--height", self.height_in)):
            if size_in is None:
                continue
            if not (math.isfinite(size_in) and _LEAST_IN <= size_in <= _MOST_IN):
                raise InputError(
                    f"{option} {size_in:g}: inches from {_LEAST_IN:g} to {_MOST_IN:g} are needed (--dpi "
                    "makes pixels of them)"
                )
            if size_in * self.dpi > _MOST_PIXELS:
                raise InputError(
                    f"{option} {size_in:g} at {self.dpi} dpi: more than {_MOST_PIXELS:,} pixels; choose a "
                    "lower --dpi"
                )
        if not _DPIS[0] <= self.dpi <= _DPIS[1]:
            raise InputError(f"--dpi {self.dpi}: {_DPIS[0]} to {_DPIS[1]} pixels in an inch are needed")


def check_pixels(width_in: float, height_in: float, dpi: int) -> None:
    """Refuses a picture of more pixels than a PNG can hold in reasonable memory.

    Args:
        width_in: of the whole picture, whoever chose it.
        height_in: likewise.
        dpi: pixels in an inch.

    Raises:
        InputError: there are more.
    """
    longest_in = max(width_in, height_in)
    if longest_in * dpi > _MOST_PIXELS:
        raise InputError(
            f"--dpi {dpi}: {longest_in:.0f} inches would be more than {_MOST_PIXELS:,} pixels; choose at "
            f"most {int(_MOST_PIXELS / longest_in)}, or draw fewer with --panels"
        )


def check_room(width_in: float, height_in: float, least_in: tuple[float, float]) -> None:
    """Refuses a picture whose axes would vanish between their texts.

    Args:
        width_in: of one pair of axes, what is left beside its texts.
        height_in: likewise.
        least_in: the width and height that it needs.

    Raises:
        InputError: there is less; the message says by how much.
    """
    for option, has_in, needs_in in (
        ("--width", width_in, least_in[0]),
        ("--height", height_in, least_in[1]),
    ):
        if has_in < needs_in:
            raise InputError(
                f"{option}: too small for what is to be drawn; each chart needs {needs_in - has_in:.1f} "
                "inches more (or draw fewer with --panels)"
            )


def ending_of(name: str) -> Ending:
    """What kind of picture a file's name asks for.

    Raises:
        InputError: another ending, or none.
    """
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if ending not in get_args(Ending):
        said = f"no picture can be made with the ending .{ending}" if ending else "the name has no ending"
        raise InputError(f"{name}: {said}; .svg, .png or .pdf is needed")
    return cast(Ending, ending)
