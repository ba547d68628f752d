"""Pure: what a reader chooses about a picture, which comparisons it has room for, what it says of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from mtpbench.errors import InputError
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.curve import describe_workload, display_name, short
from mtpbench_analysis.frame import PointSet, Unused
from mtpbench_analysis.metric import Metric
from mtpbench_analysis.metric_table import metric_by_key, metrics_in

Ending = Literal["svg", "png", "pdf"]
Y_KEYS = tuple(one.key_in("plot") for one in metrics_in("plot"))
"""What a picture's vertical axis can say."""
if TYPE_CHECKING:
    YKey = str
else:
    # The command line offers what the metric table declares.
    YKey = Literal[Y_KEYS]

DEFAULT_DPI = 150
_MOST_IN, _LEAST_IN = 100.0, 2.0
_MOST_PIXELS = 20_000
_DPIS = (20, 1200)
DEFAULT_PANELS, MOST_PANELS = 12, 90
"""90 panels are 30 rows: a PNG of 17,000 pixels' height at the usual resolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a picture looks.

    Args:
        metric: what the vertical axis says, by its key among `Y_KEYS`.
        front_only: no points below the front and no invalid ones.
        log: both axes logarithmic.
        loads: the concurrency or rate beside each knot.
        width_in, height_in: of the whole picture; None for what its panels need.
        dpi: pixels in an inch of a PNG.

    Raises:
        InputError: a size is no size, or the picture would have too many pixels.
    """

    metric: str = Y_KEYS[0]
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

    @property
    def figure(self) -> Metric:
        """The metric on the vertical axis."""
        return metric_by_key("plot", self.metric)


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
        why = f"no picture can be made with the ending .{ending}" if ending else "the name has no ending"
        raise InputError(f"{name}: {why}; .svg, .png or .pdf is needed")
    return cast(Ending, ending)


def choose_comparisons(comparisons: Sequence[Comparison], at_most: int) -> tuple[Comparison, ...]:
    """At most so many comparisons, in their own order: those whose poorer side has the most knots.

    A front of one point says little, and there are many such pairs in public data.
    """
    ranked = sorted(range(len(comparisons)), key=lambda i: (-_knots(comparisons[i]), i))
    return tuple(comparisons[i] for i in sorted(ranked[:at_most]))


def _knots(comparison: Comparison) -> int:
    return min(len(comparison.baseline.front), max(len(other.front) for other in comparison.others))


def name_charts(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Hardware, model, precision, lengths and engine of each; what else tells equal ones apart, if any."""
    names = [describe_workload(one.baseline) or "workload not recorded" for one in comparisons]
    titles = [
        f"{name} ({more})" if names.count(name) > 1 and (more := _telling(one)) else name
        for name, one in zip(names, comparisons, strict=True)
    ]
    seen: dict[str, int] = {}
    for i, name in enumerate(titles):
        seen[name] = seen.get(name, 0) + 1
        if titles.count(name) > 1:
            titles[i] = f"{name} #{seen[name]}"
    return tuple(titles)


def _telling(comparison: Comparison) -> str:
    baseline = comparison.baseline
    telling = [
        short(value, name) for name in ("image", "version", "workload") if (value := baseline.shared(name))
    ]
    return ", ".join(telling[:1])


def write_title(comparisons: Sequence[Comparison]) -> str:
    """`MTP versus Off`, with SIMULATED in front where any of it is."""
    arms = list(dict.fromkeys(display_name(curve.arm) for one in comparisons for curve in one.others))
    listed = ", ".join(arms[:4]) + (f" and {len(arms) - 4} more" if len(arms) > 4 else "")
    text = f"{listed} versus {display_name(comparisons[0].baseline.arm)}"
    return f"SIMULATED: {text}" if any(one.simulated for one in comparisons) else text


def caution(comparisons: Sequence[Comparison], pool: Sequence[str]) -> tuple[str, ...]:
    """What the reader of a picture alone would not know: that sides differ otherwise, that a curve mixes.

    Args:
        comparisons: those that are drawn.
        pool: fields in which the reader let one curve's points differ.
    """
    sentences = []
    if any(one.pooling for one in comparisons) and pool:
        sentences.append(f"A curve may mix points that differ in {', '.join(pool)}, as was asked for.")
    differing = sum(any(one.confounds.values()) for one in comparisons)
    if differing:
        where = "" if len(comparisons) == 1 else f" in {differing} of {len(comparisons)} charts"
        sentences.append(
            f"The sides differ in more than speculation, or nobody recorded whether they do{where}; mtpbench "
            "compare lists it."
        )
    return tuple(sentences)


@dataclass(frozen=True, kw_only=True, slots=True)
class Undrawn:
    """How many points a source has, or should have, that no picture can show.

    Args:
        damaged: points whose files can't be read.
        missing: planned ones that nobody has measured.
        without_figures: measured ones without rates, and rows that are no point.
    """

    damaged: int = 0
    missing: int = 0
    without_figures: int = 0

    def texts(self) -> list[str]:
        """`1 damaged, not drawn`, `3 not measured yet`; nothing of what there is none of."""
        parts = [f"{self.damaged} damaged, not drawn"] if self.damaged else []
        parts += [f"{self.without_figures} without figures, not drawn"] if self.without_figures else []
        return parts + ([f"{self.missing} not measured yet"] if self.missing else [])


def count_unused(unused: Sequence[Unused]) -> Undrawn:
    """What a source's unused points are; what is there twice is drawn once and lacks nothing."""
    kinds = Counter(item.kind for item in unused)
    return Undrawn(damaged=kinds["damaged"], missing=kinds["planned"], without_figures=kinds["unusable"])


def describe_left_out(drawn: int, comparisons: int) -> tuple[str, str]:
    """What a sheet leaves out, and what would draw it."""
    text = f"{comparisons - drawn} of {comparisons} comparisons, those with the fewest knots, are not drawn"
    if comparisons <= MOST_PANELS:
        return text, f"--panels {comparisons} draws all"
    return (
        text,
        f"a picture holds at most {MOST_PANELS}: choose with --hardware, --precision, --isl, --engine",
    )


def describe_source(names: Sequence[str], points: PointSet, version: str) -> str:
    """Where the points come from, in one line that says nothing of this machine's folders.

    Args:
        names: of the files and folders that were read.
        points: what they held, filtered.
        version: of mtpbench.
    """
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    valid = sum(point.valid for point in points.points)
    days = sorted({point.date for point in points.points if point.date})
    parts = [f"Source: {listed}", f"{valid} valid points, {len(points.points) - valid} invalid"]
    parts += count_unused(points.unused).texts()
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return "; ".join([*parts, f"mtpbench {version}"]) + "."
