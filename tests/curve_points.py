"""Points and curves for the tests of the reading half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.importers import read_source

FIXTURES = Path(__file__).parent / "fixtures"
GLM5 = FIXTURES / "glm5_b200_mtp_off_8k1k.csv"
INFERENCEX = FIXTURES / "inferencex" / "rows.json"


def make_points(arm: str, *pairs: tuple[float, float], **shared: Any) -> list[CurvePoint]:
    """One point per (interactivity, throughput), each at a concurrency of its own."""
    return [
        CurvePoint(
            arm=arm,
            interactivity_tps=x,
            tput_tps_per_gpu=y,
            **{"concurrency": 10 + i, "hardware": "b200", **shared},
        )
        for i, (x, y) in enumerate(pairs)
    ]


def make_curve(arm: str, *pairs: tuple[float, float], **shared: Any) -> Curve:
    (curve,) = build_curves(make_points(arm, *pairs, **shared))
    return curve


def point_set(*points: CurvePoint) -> PointSet:
    return PointSet(sources=("test",), points=points)


def glm5() -> PointSet:
    """The real measured pair, MTP and Off, GLM-5 FP8 on one B200 node."""
    return read_source(GLM5)
