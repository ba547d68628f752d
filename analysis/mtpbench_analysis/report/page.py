"""Comparisons as one self-contained HTML page: no network, light and dark, printable.

Without scripts it is a static document; a small script of our own lets a reader type targets and turn the
chart. Its policy allows that one script and that one style sheet by their hashes, and no request at all.
Nothing is read but the page's own parts, which lie in this package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtpbench_analysis.chart import svg
from mtpbench_analysis.chart.comparison_chart import describe_chart
from mtpbench_analysis.chart.style import style_sheet
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.report.data import describe_page, to_script_text
from mtpbench_analysis.report.overview import (
    HEADERS,
    Alone,
    describe_health,
    find_opening,
    shorten_paths,
    write_overview_rows,
)
from mtpbench_analysis.traces import SweepTrace

SCRIPTS = (
    *("numbers", "curve", "metered", "metrics", "words", "model", "table", "chart", "export", "card"),
    *("traces", "facts", "plots", "panel", "sweep", "main"),
)
"""Parts of the page's script in the order in which they need each other."""


def render_page(
    title: str,
    comparisons: Sequence[Comparison],
    left_out: Sequence[str] = (),
    provenance: Sequence[str] = (),
    traces: Sequence[SweepTrace] = (),
    alone: Alone | None = None,
) -> str:
    """The page's HTML; every text is escaped.

    Args:
        title: of the page.
        comparisons: one section each; at least one, or `alone` says why there is none.
        left_out: what was not used, and why.
        provenance: where it comes from, a line each.
        traces: what lies behind the points that come from results folders.
        alone: what stands in the place of comparisons.
    """
    documents = [write_document(comparison) for comparison in comparisons]
    charts = [describe_chart(comparison) for comparison in comparisons]
    style, script = page_style(), page_script()
    data = describe_page(comparisons, documents, charts, traces, find_opening(comparisons), title)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            banner=SIMULATED_BANNER if _is_simulated(comparisons, traces, alone) else None,
            parts=[
                (document, svg.draw_svg(chart)) for document, chart in zip(documents, charts, strict=True)
            ],
            alone=alone,
            overview=write_overview_rows(comparisons, documents),
            overview_headers=HEADERS,
            left_out=left_out,
            provenance=provenance,
            health=describe_health(traces),
            chart=svg,
            policy=_policy(style, script),
            # Both are files of ours; the data's own text is escaped so that it can't end its element.
            style=Markup(style),
            script=Markup(script),
            data=Markup(to_script_text(data)),
        )
    )


def _environment() -> Environment:
    """What fills the template in: every text is escaped, and a name that it does not know is an error."""
    environment = Environment(
        loader=PackageLoader("mtpbench_analysis", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shorten"] = shorten_paths
    return environment


def _is_simulated(
    comparisons: Sequence[Comparison], traces: Sequence[SweepTrace], alone: Alone | None
) -> bool:
    if alone is None:
        return any(comparison.simulated for comparison in comparisons)
    stored = [point.stored.result.simulated for sweep in traces for point in sweep.points]
    return any(stored) or any(point.simulated for point in alone.points)


def page_style() -> str:
    """The page's style sheet."""
    return style_sheet() + read_part("page.css")


@cache
def page_script() -> str:
    """The page's script, in one scope of its own."""
    parts = "\n".join(read_part(f"script/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def read_part(name: str) -> str:
    """A style sheet or script of the page, by its path beside this module."""
    return files("mtpbench_analysis.report").joinpath(*name.split("/")).read_text("utf-8")
