"""CPU per event and ΔTTFT over concurrency, one line per client, as an SVG written by hand."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape

from scenarios import SCENARIOS
from summary import GOALS, Runs, median

WIDTH, HEIGHT, MARGIN, LEGEND = 430, 300, 60, 30
COLOURS = ("#0b6e4f", "#c1440e", "#2b59c3", "#8e44ad", "#b8860b", "#555555")
CLOSED = tuple(s for s in SCENARIOS if s.name in ("c64", "c512", "c2048", "c16384"))
PANELS = (("CPU per event, µs", "cpu_us_per_event"), ("ΔTTFT, ms", "delta_ttft_ms"))
GAP, LETTER = 45, 6.2
"""Of the legend, in pixels: beside each name, and for each of its letters."""
Line = list[tuple[float, float]]


def draw(runs: Runs, labels: Mapping[str, str]) -> str:
    """The SVG document; both axes of both panels are logarithmic."""
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(labels)}
    measured = [name for name in labels if any(run["client"] == name for run in runs)]
    parts = []
    for i, (title, figure) in enumerate(PANELS):
        lines = {name: _points(runs, name, figure) for name in measured}
        goals = {g.bound for g in GOALS if g.figure == figure == PANELS[0][1]}  # one for all loads
        panel = _panel(title, lines, colours, goals)
        parts.append(f'<g transform="translate({i * WIDTH} 0)">{panel}</g>')
    x = float(MARGIN)
    for name in measured:
        parts.append(f'<rect x="{x:.0f}" y="{HEIGHT + 8}" width="12" height="4" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="{HEIGHT + 14}">{escape(labels[name])}</text>')
        x += GAP + LETTER * len(labels[name])
    size = f'viewBox="0 0 {2 * WIDTH} {HEIGHT + LEGEND}"'
    style = 'font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="white"/>\n'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{ground}' + "\n".join(parts) + "\n</svg>\n"
    )


def _points(runs: Runs, name: str, figure: str) -> Line:
    found = ((s.concurrency, median(runs, name, s.name, figure)) for s in CLOSED)
    return [(float(x), y) for x, y in found if x and y is not None and y > 0]


def _panel(
    title: str, lines: Mapping[str, Line], colours: Mapping[str, str], goals: Collection[float]
) -> str:
    points = [point for line in lines.values() for point in line]
    parts = [f'<text x="{MARGIN}" y="20" font-weight="bold">{title}, over requests in flight</text>']
    if not points:
        return parts[0]
    low = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high = 10 ** math.ceil(math.log10(max(y for _, y in points)) + 1e-9)
    x_at = _scale([s.concurrency or 1 for s in CLOSED], MARGIN, WIDTH - 20)
    y_at = _scale([low, high], HEIGHT - 30, 40)
    for s in CLOSED:
        x = x_at(s.concurrency or 1)
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{s.concurrency}</text>')
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = y_at(10.0**exponent)
        parts.append(f'<path d="M{MARGIN} {y:.0f}H{WIDTH - 20}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{MARGIN - 6}" y="{y + 4:.0f}" text-anchor="end">{_tick(10.0**exponent)}</text>'
        )
    for goal in goals:
        y = y_at(goal)
        line = f'M{MARGIN} {y:.0f}H{WIDTH - 20}" stroke="#888888" stroke-dasharray="4 3"/>'
        parts.append(f'<path d="{line}<text x="{MARGIN + 4}" y="{y + 13:.0f}">goal {goal:g}</text>')
    for name, line in lines.items():
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colours[name]}"/>' for x, y in line
        ]
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _scale(ends: Sequence[float], begin: float, end: float):
    low, high = math.log(min(ends)), math.log(max(ends))
    return lambda value: begin + (math.log(value) - low) / (high - low) * (end - begin)
