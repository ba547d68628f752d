"""Pure: where a page's points come from, in a few lines; nothing in them tells a machine's folders."""

from __future__ import annotations

import re
from collections.abc import Sequence

import mtpbench
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.numbers import counted

_PATH = re.compile(r"(?<![\w.:/@~+<-])~?/(?!(?:dev|sys|proc|v\d+)/)(?:[\w.@+%=-]+/)+([\w.@+%=-]+)")


def describe_provenance(points: PointSet, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The sources, what they held, the images and days, and what made the page.

    Args:
        points: of all sources.
        names: of the sources, without the folders that they lie in; by default the last part of each path.
    """
    names = names or [name_source(source) for source in points.sources]
    valid = sum(point.valid for point in points.points)
    held = f"{counted(valid, 'valid point')}, {len(points.points) - valid} invalid"
    lost = [item for item in points.unused if item.kind != "note"]
    if lost:
        held += f", {counted(len(lost), 'row')} that could not become a point"
    lines = [f"Read from {', '.join(names)}: {held}."]
    days = sorted({point.date for point in points.points if point.date})
    if days:
        lines.append(f"Measured {days[0]}." if len(days) == 1 else f"Measured {days[0]} to {days[-1]}.")
    for name, few in (("engine", "Engines"), ("image", "Images")):
        known = sorted({str(getattr(point, name)) for point in points.points if getattr(point, name)})
        if known:
            more = f" and {len(known) - 12} more" if len(known) > 12 else ""
            lines.append(f"{few}: {', '.join(known[:12])}{more}.")
    return (*lines, f"Page made by mtpbench {mtpbench.__version__}; each point's source stands with it.")


def shorten_paths(text: str) -> str:
    """The text with `…/result.json` in place of `/home/me/results/sweep/result.json`.

    Addresses (`http://…`, `/v1/completions`) and what is the same on every machine (`/dev`, `/proc`, `/sys`)
    stay as they are.
    """
    return _PATH.sub(r"…/\1", text)


def name_source(source: str) -> str:
    """The last component of a source's path."""
    return source.rstrip("/").rsplit("/", 1)[-1] or source
