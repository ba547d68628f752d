"""Pure: a regression as text: its heading, what was found, and what each finding rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtpbench.records import to_json as record_to_json
from mtpbench_analysis.document import (
    BadNews,
    Document,
    GoodNews,
    List,
    Table,
    Text,
    Texts,
    filled,
    json_text,
)
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.numbers import MISSING, counted, fixed, percent
from mtpbench_analysis.regression.estimates import Basis
from mtpbench_analysis.regression.verdicts import Finding, Level, Regression

SCHEMA_VERSION = 1
"""History of the JSON: 1 is the first version."""

_LEVELS: dict[Level, str] = {"all": "all", "arm": "arms", "recipe": "recipes"}
_TONES: dict[str, type[str]] = {"slower": BadNews, "faster": GoodNews, "no change": GoodNews}
_LISTED = 12
"""So many recipes are shown in a terminal: those where something was found, then the first of the others."""
_BASES: dict[Basis, str] = {
    "sweeps": "between sweeps or repeats by restart, server starts included",
    "deployments": "between deployments, each with the luck of its server starts",
    "rounds": "between repeats inside the sweeps",
    "recipes": "from the scatter of single runs over the recipes",
}


def write_regression(regression: Regression) -> Document:
    """Returns the findings over all recipes, then by arm and by recipe."""
    differences = ", ".join(regression.matched.differences)
    return Document(
        title=f"Is new slower than old? {differences or 'Nothing recorded differs'}",
        simulated=regression.matched.simulated,
        blocks=filled(
            Text(lines=heading(regression)),
            List(id="words", title="In words", items=sentences(regression)),
            summary_table(regression),
            List(id="notes", title="What this rests on", items=notes(regression)),
            *recipe_tables(regression),
            List(id="left_out", title="Not tested", items=list_left_out(regression.left_out)),
        ),
    )


def heading(regression: Regression) -> tuple[str, ...]:
    """Returns what is compared, what differs, and by which criteria."""
    matched, criteria = regression.matched, regression.criteria
    count = len(matched.recipes)
    tested_of_them = f", {count - len(regression.untested)} of them tested" if regression.untested else ""
    lines = [
        f"Old: {', '.join(matched.old_sources)}. New: {', '.join(matched.new_sources)}. "
        f"{counted(count, 'recipe')} on both sides{tested_of_them}.",
    ]
    tested = "; ".join(matched.differences) or "nothing that was recorded"
    unknown = f" Not recorded: {', '.join(matched.unknown)}." if matched.unknown else ""
    lines.append(f"What differs, and so is tested: {tested}.{unknown}")
    lines.append(
        f"A change of {_plain(criteria.threshold)} matters; intervals of {_plain(criteria.confidence)}; "
        f"a change that matters must be found with a chance of {_plain(criteria.power)}."
    )
    return tuple(lines)


def sentences(regression: Regression) -> tuple[str, ...]:
    """Returns a sentence for each metric over all recipes, and one where the acceptance length moved."""
    overall = [
        _sentence(f, regression.criteria.threshold) for f in regression.select("all") if not f.metric.explains
    ]
    return (*overall, *_explanations(regression))


def notes(regression: Regression) -> tuple[str, ...]:
    """Returns what the intervals rest on, and what is not in them."""
    bases: dict[Basis, dict[str, None]] = {}
    for finding in regression.findings:
        if finding.estimate:
            bases.setdefault(finding.estimate.basis, {})[_LEVELS[finding.level]] = None
    lines = [f"Noise of {', '.join(levels)}: {_BASES[basis]}." for basis, levels in bases.items()]
    if {"rounds", "recipes"} & set(bases):
        noise = regression.criteria.start_noise
        lines.append(
            "No server was started twice for the same recipes, so another start could differ in a way that "
            f"nothing here shows; {percent(noise)} is allowed for it, an assumption (--start-noise). Several "
            "sweeps of a side (--old, --new) would measure it."
            if noise
            else "Another server start could differ in a way that nothing here shows, and nothing is allowed "
            "for it (--start-noise 0)."
        )
    lines.append(
        "Arms and recipes: Holm's correction for the tests, Bonferroni's for the intervals, by metric."
    )
    lines.append(
        "finds: the smallest change for the worse that this data finds with the asked power. needs: sweeps "
        "of each side, servers started anew for each, that would find the threshold, and would see it if "
        "nothing changed; such sweeps were played with this noise, as well as it is known."
    )
    return (*lines, *say_gate_needs(regression))


def say_gate_needs(regression: Regression) -> Texts:
    """Returns how many sweeps would let the gate see; nothing where it sees already."""
    if not regression.is_blind:
        return ()
    needed, chance = regression.sweeps_needed, _plain(regression.criteria.power)
    how = "not even 100 sweeps" if needed is None else f"{needed} sweeps"
    return (
        f"If nothing changed, {how} of each side, servers started anew for each, would open the gate with a "
        f"chance of {chance} (played with this noise).",
    )


def summary_table(regression: Regression) -> Table:
    """Returns each metric over all recipes and by arm."""
    rows: list[Texts] = []
    sections: list[int] = []
    for name in dict.fromkeys(f.metric.id for f in regression.findings):
        sections.append(len(rows))
        findings = (*regression.select("all", name), *regression.select("arm", name))
        rows += [(f.title if i == 0 else "", f.of, *_figures(f, _needs(f))) for i, f in enumerate(findings)]
    return Table(
        title="Overall and by arm",
        headers=("", "of", "change", "interval", "finds", "needs", "verdict"),
        rows=tuple(rows),
        sections=tuple(sections),
        text_columns=2,
    )


def recipe_tables(regression: Regression) -> tuple[Table, ...]:
    """Returns every recipe, one table for each metric."""
    return tuple(
        _recipe_table(findings)
        for name in dict.fromkeys(f.metric.id for f in regression.findings)
        if (findings := regression.select("recipe", name))
    )


def _recipe_table(findings: Sequence[Finding]) -> Table:
    first = sorted(range(len(findings)), key=lambda i: findings[i].verdict not in ("slower", "faster"))
    return Table(
        title=f"By recipe: {findings[0].title}",
        headers=("recipe", "old", "new", "change", "interval", "finds", "verdict"),
        rows=tuple((f.of, f.metric.text(f.old), f.metric.text(f.new), *_figures(f)) for f in findings),
        short=tuple(first[:_LISTED]) if len(findings) > _LISTED else (),
    )


def verdict_text(finding: Finding) -> str:
    """Returns the verdict as a reader's word."""
    if finding.verdict in ("slower", "faster"):
        if finding.metric.explains:
            return "higher" if finding.change > 0 else "lower"
        return finding.verdict
    if finding.verdict == "no power" and finding.estimate is None:
        return "no power: nothing tells its noise"
    return finding.verdict


def list_left_out(left_out: Sequence[Unused]) -> tuple[str, ...]:
    """Returns one line for each thing that was not tested, with its reason."""
    return tuple(dict.fromkeys(map(str, left_out)))


def to_json(regression: Regression) -> str:
    """Returns everything the tables show, as JSON text; unknown is null, changes are shares."""
    matched = regression.matched
    data = {
        "schema_version": SCHEMA_VERSION,
        "simulated": matched.simulated,
        "criteria": record_to_json(regression.criteria),
        "old": list(matched.old_sources),
        "new": list(matched.new_sources),
        "differences": list(matched.differences),
        "not_recorded": list(matched.unknown),
        "findings": [_finding(f) for f in regression.findings],
        "sentences": list(sentences(regression)),
        "notes": list(notes(regression)),
        "gate": {
            "open": not regression.gate,
            "reasons": list(regression.gate),
            "sweeps_needed": regression.sweeps_needed if regression.is_blind else None,
        },
        "left_out": list(list_left_out(regression.left_out)),
    }
    return json_text(data)


def _finding(finding: Finding) -> dict[str, Any]:
    estimate, interval = finding.estimate, finding.interval
    return {
        "metric": finding.metric.key_in("regress"),
        "level": finding.level,
        "of": finding.of,
        "recipes": finding.recipes,
        "old": finding.old,
        "new": finding.new,
        "change": finding.change,
        "interval": None if interval is None else [interval.low, interval.high],
        "interval_confidence": None if interval is None else interval.confidence,
        "p": finding.p,
        "verdict": finding.verdict,
        "smallest_found": finding.smallest,
        "sweeps_needed": finding.sweeps_needed,
        "basis": None if estimate is None else estimate.basis,
        "log_se": None if estimate is None else estimate.se,
        # Infinite where nothing but the allowance is left; JSON has no infinity.
        "df": None if estimate is None or estimate.df == float("inf") else estimate.df,
    }


def _sentence(finding: Finding, threshold: float) -> str:
    what = f"{finding.metric.label_in('regress')}, all recipes: {verdict_text(finding)}"
    if finding.interval is None:
        return what + "."
    change = f"{signed(finding.change)} ({_interval(finding)})"
    if finding.verdict == "no power":
        return f"{what}. Changed by {change}, but {_blind(finding, threshold)}."
    if finding.verdict == "no change":
        return f"{what} beyond the threshold: {change}."
    if finding.verdict == "undecided":
        return f"{what}: {change} is neither surely beyond the threshold nor surely within it."
    return f"{what}, {change}."


def _blind(finding: Finding, threshold: float) -> str:
    smallest = "" if finding.smallest is None else percent(finding.smallest)
    needed = finding.sweeps_needed
    how = "more than 100 sweeps" if needed is None else f"{needed} sweeps"
    return (
        f"this data could only have found {smallest} or more; {how} of each side would find "
        f"{_plain(threshold)}"
    )


def _explanations(regression: Regression) -> list[str]:
    moved = [
        finding
        for finding in regression.select("arm", "acceptance_length")
        if finding.p is not None
        and finding.p < 1 - regression.criteria.confidence
        and signed(finding.change) != signed(0.0)
    ]
    return [
        f"The acceptance length of {f.of} went from {fixed(f.old, 2)} to {fixed(f.new, 2)} "
        f"({signed(f.change)}): that explains part of its change, or all of it; look at drafts, prompts and "
        "sampling first."
        for f in moved
    ]


def _figures(finding: Finding, *more: str) -> Texts:
    smallest = MISSING if finding.smallest is None else percent(finding.smallest)
    verdict = _TONES.get(verdict_text(finding), str)(verdict_text(finding))
    return signed(finding.change), _interval(finding), smallest, *more, verdict


def _needs(finding: Finding) -> str:
    if finding.verdict != "no power" or finding.estimate is None:
        return MISSING
    return "> 100" if finding.sweeps_needed is None else str(finding.sweeps_needed)


def signed(share: float) -> str:
    """Returns `+1.2%`, `−8.9%`, `0.0%`."""
    text = percent(abs(share))
    return text if text == "0.0%" else ("+" if share > 0 else "−") + text


def _interval(finding: Finding) -> str:
    interval = finding.interval
    return MISSING if interval is None else f"{signed(interval.low)} to {signed(interval.high)}"


def _plain(share: float) -> str:
    return f"{share * 100:.6g}%"
