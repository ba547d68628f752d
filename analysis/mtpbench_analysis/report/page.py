"""Comparisons as one self-contained HTML page: no network, light and dark, printable.

Without scripts it is a static document; its own small script lets a reader type targets and change the
chart. The page's policy allows this script and this style sheet by their hashes, and no request. This module
reads only the page's own parts, which lie in this package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtpbench_analysis.chart import svg
from mtpbench_analysis.chart.comparison_chart import describe_chart
from mtpbench_analysis.chart.style import style_sheet
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.document import SIMULATED_BANNER, visible
from mtpbench_analysis.report.data import describe_page, to_script_text
from mtpbench_analysis.report.overview import (
    HEADERS,
    LonePoints,
    describe_health,
    describe_overview,
    find_opening,
    shorten_paths,
)
from mtpbench_analysis.traces import SweepTrace

SCRIPTS = (
    *("numbers", "curve", "metered", "metrics", "sentences", "model", "table", "chart", "export", "card"),
    *("traces", "facts", "plots", "panel", "sweep", "main"),
)
"""The parts of the page's script, each after the parts that it needs."""


def render_page(
    title: str,
    comparisons: Sequence[Comparison],
    left_out: Sequence[str] = (),
    provenance: Sequence[str] = (),
    traces: Sequence[SweepTrace] = (),
    alone: LonePoints | None = None,
) -> str:
    """Returns the page's HTML; every text is escaped.

    Args:
        title: the title of the page.
        comparisons: comparisons with a section each; without any, `alone` says why.
        left_out: sentences about points that were not used.
        provenance: lines about the sources.
        traces: traces of the points that come from results folders.
        alone: the points, and why nothing can be compared; None with comparisons.
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
            overview=describe_overview(comparisons, documents),
            overview_headers=HEADERS,
            left_out=left_out,
            provenance=provenance,
            health=describe_health(traces),
            chart=svg,
            policy=_policy(style, script),
            # Style and script are this package's own files; the data is escaped, so it can't end its element.
            style=Markup(style),
            script=Markup(script),
            data=Markup(to_script_text(data)),
        )
    )


def _environment() -> Environment:
    """Returns Jinja's environment: it escapes every text, and an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader("mtpbench_analysis", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["shorten"] = shorten_paths
    return environment


def _visible(value: Any) -> Any:
    """Returns what a template shows: text made visible; what is markup already, and no text, as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_simulated(
    comparisons: Sequence[Comparison], traces: Sequence[SweepTrace], alone: LonePoints | None
) -> bool:
    if alone is None:
        return any(comparison.simulated for comparison in comparisons)
    stored = [point.stored.result.simulated for sweep in traces for point in sweep.points]
    return any(stored) or any(point.simulated for point in alone.points)


def page_style() -> str:
    """Returns the page's style sheet."""
    return style_sheet() + read_part("page.css")


@cache
def page_script() -> str:
    """Returns the page's script, in a scope of its own."""
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
    """Reads a style sheet or script of the page, by its path beside this module."""
    return files("mtpbench_analysis.report").joinpath(*name.split("/")).read_text("utf-8")
