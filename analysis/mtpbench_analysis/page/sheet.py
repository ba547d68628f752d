"""Pure: the page's numbers of one workload and arm, explained, as a sheet."""

from __future__ import annotations

from mtpbench_analysis.curves import build_curves
from mtpbench_analysis.document import SIMULATED_BANNER, describe_workload
from mtpbench_analysis.page.explain import Explanation
from mtpbench_analysis.page.texts import (
    explanation_table,
    page_table,
    to_records,
    write_page_sentences,
)
from mtpbench_analysis.sheets import Sheet


def to_sheet(explanation: Explanation) -> Sheet:
    """The page's table and claims, then each of its numbers beside the honest one and why they differ."""
    names = " versus ".join(side.label for side in explanation.sides)
    curves = build_curves(explanation.sides[0].points)
    where = describe_workload(curves[0], served_by=False) if curves else ""
    simulated = "SIMULATED: " if explanation.simulated else ""
    return Sheet(
        title=f"{simulated}{names}, as the public page computes it" + (f": {where}" if where else ""),
        banner=SIMULATED_BANNER if explanation.simulated else None,
        sentences=write_page_sentences(explanation),
        tables=(page_table(explanation), explanation_table(explanation)),
        data={"cells": to_records(explanation)},
    )
