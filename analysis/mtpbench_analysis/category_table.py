"""Pure: acceptance, tokens per step and speed of each kind of text, at each depth of speculation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Literal

from mtpbench.records import CategoryFigures, StepsGap, ToldGap
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.document import Caution, Table
from mtpbench_analysis.numbers import MISSING, fixed, speed, spread
from mtpbench_analysis.tables import Section, section_rows

Figure = Literal["acceptance_length", "tokens_per_step", "interactivity_tps"]
Gap = StepsGap | ToldGap | Literal["no_tpot", "not_measured"]
UNNAMED = "(no kind named)"


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryCell:
    """A category cell holds one figure of one kind of text, of an arm at a load.

    Args:
        category: the kind of text; None for prompts that name none.
        value: the mean over runs, by their requests; None where no run has it.
        low, high: ends of the interval of one run's median (with several runs the means of their ends);
            None where a run has too few requests for both, and of what has no interval here.
        requests: those that the value rests on, of all runs.
        gap: why there is no value.
    """

    category: str | None
    value: float | None
    low: float | None = None
    high: float | None = None
    requests: int
    gap: Gap | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryRow:
    """A category row has a cell for each curve, the baseline's first; None where it has no such point."""

    figure: Figure
    recipe: str
    category: str | None
    cells: tuple[CategoryCell | None, ...]


def category_rows(comparison: Comparison) -> tuple[CategoryRow, ...]:
    """Returns the figures by kind of text at every load; none where no dataset names kinds."""
    return tuple(
        CategoryRow(figure=figure, recipe=recipe, category=name, cells=cells)
        for figure in _LABELS
        for recipe, items in _by_recipe(comparison).items()
        for name in _categories(items)
        if any(cells := tuple(None if item is None else _cell(item, name, figure) for item in items))
    )


def _by_recipe(comparison: Comparison) -> dict[str, list[Measured | None]]:
    """Returns what each curve measured by the recipe that it shares with others."""
    found: dict[str, list[Measured | None]] = {}
    for place, curve in enumerate(comparison.curves):
        for item in curve.measured:
            if any(run.by_category for run in item.runs):
                recipe = "\n".join(filter(None, (item.mean.load_short, item.mean.topology)))
                if found.get(recipe, [None] * (place + 1))[place] is not None:
                    recipe += f"\n{item.mean.source}"
                found.setdefault(recipe, [None] * len(comparison.curves))[place] = item
    return found


def _categories(items: Sequence[Measured | None]) -> list[str | None]:
    names = {one.category for item in items if item for run in item.runs for one in run.by_category}
    unnamed: list[str | None] = [None] if None in names else []
    return [*sorted(name for name in names if name is not None), *unnamed]


def _cell(item: Measured, name: str | None, figure: Figure) -> CategoryCell:
    """Returns the cell of one kind of text, over the runs of a recipe."""
    found = [one for run in item.runs for one in run.by_category if one.category == name and one.requests]
    known = [(one, value) for one in found if (value := getattr(one, figure)) is not None]
    if not known:
        gap = _GAPS[figure](found[0]) if found else "not_measured"
        requests = sum(one.requests for one in found)
        return CategoryCell(category=name, value=None, requests=requests, gap=gap)
    requests = sum(one.requests for one, _ in known)
    mean = sum(value * one.requests for one, value in known) / requests
    low, high = _ends([one for one, _ in known]) if figure == "interactivity_tps" else (None, None)
    return CategoryCell(category=name, value=mean, low=low, high=high, requests=requests, gap=None)


def _ends(runs: Sequence[CategoryFigures]) -> tuple[float | None, float | None]:
    """Returns the ends of a median's interval, in tokens/s; None where a run has too few requests for it."""
    ends = []
    for one in runs:
        interval = one.tpot_s and one.tpot_s.p50_interval
        if not interval or not interval.low or not interval.high:
            return None, None
        ends.append((1 / interval.high, 1 / interval.low))
    return fmean(low for low, _ in ends), fmean(high for _, high in ends)


_LABELS: Mapping[Figure, str] = {
    "acceptance_length": "acceptance length",
    "tokens_per_step": "tokens per step",
    "interactivity_tps": "tok/s/user (median)",
}
_GAPS: Mapping[Figure, Callable[[CategoryFigures], Gap | None]] = {
    "acceptance_length": lambda one: one.acceptance_gap,
    "tokens_per_step": lambda one: one.steps_gap,
    "interactivity_tps": lambda one: "no_tpot",
}
_WORDS: Mapping[Gap, str] = {
    "events_gathered": "events hold several steps",
    "events_split_or_merged": "events are no steps",
    "uncounted": "nothing tells steps",
    "no_later_events": "one event an answer",
    "impossible": "no step gives that",
    "speculation_off": "off",
    "not_told": "not told",
    "no_drafts": "no drafts",
    "no_tpot": "no time per token",
    "not_measured": "no request",
}


def category_table(comparison: Comparison) -> Table | None:
    """Returns the table of kinds of text × arms; None where no dataset names kinds."""
    rows = category_rows(comparison)
    if not rows:
        return None
    untold = [figure for figure in _LABELS if not any(map(_is_told, _of(rows, figure)))]
    body, begins = section_rows([*_sections(rows, untold)])
    shown = [row for row in rows if row.figure not in untold]
    largest = max(dict.fromkeys(row.recipe for row in rows), key=partial(_requests, rows))
    return Table(
        id="categories",
        title="By kind of text",
        headers=("", "kind of text", *map(_head, comparison.curves)),
        rows=body,
        caption=_caption(comparison, rows, untold),
        sections=begins,
        text_columns=2,
        short=tuple(i for i, row in enumerate(shown) if row.recipe == largest),
    )


def _requests(rows: Sequence[CategoryRow], recipe: str) -> int:
    """Returns the requests that the figures at a load rest on."""
    return sum(cell.requests for row in rows if row.recipe == recipe for cell in row.cells if cell)


def _of(rows: Sequence[CategoryRow], figure: Figure) -> list[CategoryRow]:
    return [row for row in rows if row.figure == figure]


def _is_told(row: CategoryRow) -> bool:
    return any(cell and cell.value is not None for cell in row.cells)


def _sections(rows: Sequence[CategoryRow], untold: Sequence[Figure]) -> Iterator[Section]:
    for figure, label in _LABELS.items():
        mine = [] if figure in untold else _of(rows, figure)
        for recipe in dict.fromkeys(row.recipe for row in mine):
            body = [
                (row.category or UNNAMED, tuple(_text(figure, cell) for cell in row.cells))
                for row in mine
                if row.recipe == recipe
            ]
            yield f"{label}\n{recipe}", body


def _text(figure: Figure, cell: CategoryCell | None) -> str:
    """Returns `2.31, n 12`; the interval of a speed behind it, and a mark where it has none; or why not."""
    if cell is None:
        return MISSING
    if cell.value is None:
        return Caution(_WORDS[cell.gap]) if cell.gap else MISSING
    if figure != "interactivity_tps":
        return f"{fixed(cell.value, 2)}, n {cell.requests}"
    if cell.low is None or cell.high is None:
        return Caution(f"{speed(cell.value)} (too few), n {cell.requests}")
    return f"{speed(cell.value)} {spread(cell.low, cell.high, speed)}, n {cell.requests}"


def _head(curve: Curve) -> str:
    """Returns an arm's name with its method and depth, where the name does not say all."""
    said = {point.speculation for item in curve.measured for point in item.runs} - {None}
    speculation = next(iter(said)) if len(said) == 1 else None
    if speculation is None or speculation.lower() == curve.label.lower():
        return curve.label
    return f"{curve.label}: {speculation}"


def _caption(comparison: Comparison, rows: Sequence[CategoryRow], untold: Sequence[Figure]) -> str:
    points = [run for curve in comparison.curves for item in curve.measured for run in item.runs]
    fewest = min(cell.requests for row in rows for cell in row.cells if cell)
    notes = [
        f"n: counted requests; the fewest in a cell are {fewest}. In brackets: 95% intervals of the median, "
        "which too few requests don't have. Acceptance and tokens per step have no interval here."
    ]
    if any(point.demonstrates for point in points):
        notes.insert(0, "The prompts were written to demonstrate this table, and are no benchmark.")
    if any(point.simulated for point in points):
        notes.append("The embedded engine does not read its prompts: its kinds differ by chance only.")
    for figure in untold:
        causes = {cell.gap for row in _of(rows, figure) for cell in row.cells if cell} - {"speculation_off"}
        why = "; ".join(sorted(_WORDS[cause] for cause in causes if cause)) or "speculation is off"
        notes.append(f"No {_LABELS[figure]}: {why} (docs/validity.md).")
    return " ".join(notes)
