"""What the tests of the page share: comparisons, and what to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curve_points import glm5, make_points, point_set
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.frame import CurvePoint

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`${alert(3)}"


def published() -> list[Comparison]:
    """The real pair of the worked example."""
    question = Question(targets_tps=(12, 40, 60), constants="2026-05")
    return list(compare_points(glm5(), question, Filter(hardware="b200")).comparisons)


def recorded(**shared: Any) -> list[CurvePoint]:
    """Two arms with everything that a point can say."""
    ladder = {
        "off": [(10.0, 900.0), (20.0, 500.0), (40.0, 100.0)],
        "mtp": [(15.0, 950.0), (30.0, 600.0), (60.0, 150.0)],
    }
    points = []
    for arm, pairs in ladder.items():
        for point in make_points(arm, *pairs, **{"engine": "vllm", "isl": 8192, "osl": 1024, **shared}):
            x, y = point.interactivity_tps, point.tput_tps_per_gpu
            spec = {
                "draft_tokens": 3,
                "acceptance_length": 2 + x / 100,
                "acceptance_per_position": (0.9, 0.7, 0.5),
            }
            values = {name: getattr(point, name) for name in CurvePoint.__dataclass_fields__}
            values |= {
                "output_tps_per_gpu": y / 9,
                "input_tps_per_gpu": y * 8 / 9,
                "power_w_per_gpu": 900.0 + x,
                "ttft_p50_s": 3 / x,
                "ttft_p99_s": 6 / x,
                "e2el_p50_s": 1024 / x,
                "gpus": 8,
                "topology": "1xTP8",
                "version": "1.3",
                "image": "img:1",
                "date": "2026-11-20",
                "acceptance_mode": "off",
            }
            if arm == "mtp":
                values |= {**spec, "acceptance_mode": "measured"}
            points.append(CurvePoint(**values))
    return points


def compared(points: list[CurvePoint], **asked: Any) -> list[Comparison]:
    return list(compare_points(point_set(*points), Question(**asked)).comparisons)


def cell(page: Any, row: int, column: int) -> str:
    text: str = (
        page.locator("table.matched tbody tr").nth(row).locator("td:not(.word)").nth(column).inner_text()
    )
    return text.replace("\n", " ")


def address(page: Any) -> str:
    """The fragment; the driver's own idea of the address may lag behind."""
    fragment: str = page.evaluate("location.hash")
    return fragment


def shapes(page: Any) -> int:
    count: int = page.locator("section:not([hidden]) .live svg.chart .point").count()
    return count


def saved(page: Any, name: str) -> Path:
    with page.expect_download() as download:
        page.click(f"[name={name}]")
    return Path(download.value.path())
