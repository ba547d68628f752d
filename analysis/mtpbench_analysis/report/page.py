"""Pure: comparisons as one self-contained HTML page: no network, no script, light and dark, printable."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.document import SIMULATED_BANNER, write_document
from mtpbench_analysis.report import chart


def render_page(title: str, comparisons: Sequence[Comparison], left_out: Sequence[str] = ()) -> str:
    """The page's HTML; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("mtpbench_analysis", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        banner=SIMULATED_BANNER if any(comparison.simulated for comparison in comparisons) else None,
        parts=[(write_document(comparison), chart.draw_chart(comparison)) for comparison in comparisons],
        left_out=left_out,
        chart=chart,
    )
