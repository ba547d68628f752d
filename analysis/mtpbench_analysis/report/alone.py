"""Pure: a page without a comparison: why there is none, and the points as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtpbench_analysis.curves import display_name
from mtpbench_analysis.figures import rate, seconds, speed
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.report.paths import shorten_paths
from mtpbench_analysis.tables import INVALID, Table, mark_simulated


@dataclass(frozen=True, kw_only=True, slots=True)
class Alone:
    """What a page shows where nothing can be compared.

    Args:
        why: in words, to stand after "no comparison: ".
        points: those with figures, valid or not.
    """

    why: str
    points: Sequence[CurvePoint]

    @property
    def sentence(self) -> str:
        """Why there is no comparison."""
        return f"No comparison: {shorten_paths(self.why)}."

    @property
    def table(self) -> Table | None:
        """The points with their figures; None where there is none."""
        if not self.points:
            return None
        rows = [
            (
                display_name(point.arm),
                point.recipe,
                "yes" if point.valid else INVALID,
                speed(point.interactivity_tps),
                rate(point.tput_tps_per_gpu),
                seconds(point.ttft_p50_s),
            )
            for point in self.points
        ]
        return Table(
            title=mark_simulated("All points with figures", any(point.simulated for point in self.points)),
            headers=("", "recipe", "valid", "tok/s/user", "tok/s/GPU", "median TTFT, s"),
            rows=tuple(rows),
            caption="The figures of an invalid point are no result: they are here to find out what happened.",
            text_columns=3,
        )
