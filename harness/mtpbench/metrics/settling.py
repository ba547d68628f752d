"""Pure: whether a run has settled: what is cut from the beginning of its window, how steady the rest is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mtpbench.metrics.packed_chunks import Requests, batches, tokens_by
from mtpbench.metrics.request_table import Floats, Ints, seconds, whole_us
from mtpbench.metrics.window import FEWEST_BLOCKS, Window, inside
from mtpbench.records import Reason, Settling, Trend

MOST_BINS = 40
FEWEST_BINS = 8
"""The mean of half as few figures says nothing about where a run settled."""
MIN_CUT, CUT_P = 0.015, 0.001
"""What is cut differs from the rest by more than this share, as the halves of a window do that drifts by
`MAX_CHANGE`, and by more than this chance explains: 1% over about ten places to cut at. MSER alone cuts
settled windows at random, by 8% on average."""
LATE_CUT, MAX_CUT = 0.25, 0.45
"""Shares of the window that are cut: from the first on a run settled late, from the second on as late as a
cut can be, or never."""
MAX_CHANGE, MAX_STEP, MAX_HALF_WIDTH = 0.03, 0.05, 0.05
"""Shares of the mean. A point moves by less, or is known better, or it has not settled."""
CHANGE_P, OTHER_P = 0.0025, 0.001
"""Chances at which a test takes a settled run for another: of a change along a line, and of the other two.
Together they are 1% over both figures; few short requests are no normal sample, and give more."""
CONFIDENCE = 0.95


def settled_window(
    table: Requests, window: Window, e2el_s: Floats, tpot_s: Floats, ended_s: Floats
) -> Window:
    """Returns the window without the beginning in which the run had not settled: at most half of it.

    The rate of output tokens and 1 / median TPOT are taken over bins of half a median request. Of each, what
    is best left out is found by MSER, and left out if it differs enough; the later end of the two is the
    window's beginning.

    Args:
        table: every request, its chunks too.
        window: the window of the slots.
        e2el_s: (r,) E2EL of the requests that count in it.
        tpot_s: (q,) TPOT of those that have one.
        ended_s: (q,) when those ended.

    Source: K. P. White, An effective truncation heuristic for bias reduction in simulation output, Simulation
    69(6), 1997; batches of several observations as in MSER-5 (White, Cobb, Spratt, 2000).
    """
    half_life_s = float(np.median(e2el_s)) / 2 if len(e2el_s) else 0.0
    bins = int(min(MOST_BINS, window.duration_s // half_life_s)) if half_life_s > 0 else 0
    if bins < FEWEST_BINS:
        return window
    edges_us = whole_us(np.linspace(window.start_s, window.end_s, bins + 1))
    places = np.searchsorted(seconds(edges_us), ended_s) - 1
    ended = np.unique(places[(places >= 0) & (places < bins)])
    medians_s = np.array([np.median(tpot_s[places == place]) for place in ended])
    cut = truncation(np.diff(_output_tokens_by(table, edges_us)))
    if (medians_s > 0).all() and (drop := truncation(1 / medians_s)):
        cut = max(cut, int(ended[drop]))
    start_us = int(edges_us[min(cut, bins // 2)])
    return Window(start_s=start_us * 1e-6, end_s=window.end_s) if cut else window


def truncation(figures: Floats) -> int:
    """Returns how many figures to leave out from the beginning, at most half: by MSER, if they differ."""
    count = len(figures)
    if count < FEWEST_BINS:
        return 0
    errors = [float(figures[drop:].var()) / (count - drop) for drop in range(count // 2 + 1)]
    drop = int(np.argmin(errors))
    if drop == 0:
        return 0
    step, p = _step_at(figures, drop)
    return drop if abs(step) > MIN_CUT and p < CUT_P else 0


def _output_tokens_by(table: Requests, moments_us: Ints) -> Floats:
    """Counts the output tokens of all requests that did not fail up to some moments, (k,), in one pass."""
    tokens, ok = np.zeros(len(moments_us)), table.ok
    for batch in batches(table):
        tokens += tokens_by(batch, table.output_tokens[batch.rows], moments_us)[ok[batch.rows]].sum(axis=0)
    return tokens


def describe_settling(
    cut_s: float,
    cut_share: float,
    blocks: Sequence[Window],
    output_tps: Sequence[float],
    tpot_s: Floats,
    ended_s: Floats,
) -> Settling:
    """Computes how a run's blocks moved; nothing is known of fewer than 5.

    Args:
        cut_s: seconds that were cut from the window's beginning.
        cut_share: their share of it.
        blocks: of the window; in each some request ended.
        output_tps: output tokens per second of each block.
        tpot_s: (q,) TPOT of the counted requests.
        ended_s: (q,) when they ended.
    """
    groups = [tpot_s[inside(ended_s, block)] for block in blocks]
    if len(blocks) < FEWEST_BLOCKS or min(float(group.min()) for group in groups) <= 0:
        return Settling(cut_s=cut_s, cut_share=cut_share)
    speeds = np.array([1 / np.median(group) for group in groups])
    return Settling(
        cut_s=cut_s,
        cut_share=cut_share,
        output_rate=find_trend(np.asarray(output_tps)),
        interactivity=find_trend(speeds),
        scatter_p=_scatter_p([np.log(group) for group in groups]),
    )


def find_trend(figures: Floats) -> Trend | None:
    """Computes the trend of the figures of equal blocks; None where nothing was served.

    The blocks are taken to err independently and normally: Student's t of the slope, and of the difference of
    the means before and after each moment with two blocks on either side, its chance times their number
    (Bonferroni). Source: A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.5.3 (batch means).
    """
    from scipy import special  # type: ignore[import-untyped]

    count, mean = len(figures), float(figures.mean())
    if mean <= 0:
        return None
    at = np.linspace(-0.5, 0.5, count)
    slope = float(at @ figures / (at @ at))
    residuals = figures - mean - slope * at
    steps = [_step_at(figures, moment) for moment in range(2, count - 1)]
    step, step_p = min(steps, key=lambda pair: pair[1])
    t = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return Trend(
        half_width=t * float(figures.std(ddof=1)) / count**0.5 / mean,
        change=slope * count / (count - 1) / mean,
        change_p=_two_sided_p(slope, float(residuals @ residuals) / (count - 2) / float(at @ at), count - 2),
        step=step,
        step_p=min(1.0, step_p * len(steps)),
    )


def _step_at(figures: Floats, moment: int) -> tuple[float, float]:
    """Returns the step of the mean at a moment, as a share of the mean after it, and the chance of it."""
    before, after = figures[:moment], figures[moment:]
    df = len(figures) - 2
    variance = (before.var() * len(before) + after.var() * len(after)) / df
    step = float(after.mean() - before.mean())
    p = _two_sided_p(step, float(variance) * (1 / len(before) + 1 / len(after)), df)
    return step / float(after.mean()) if after.mean() > 0 else 0.0, p


def _two_sided_p(estimate: float, variance: float, df: int) -> float:
    """Returns the chance of an estimate at least as far from 0, by Student's t."""
    from scipy import special

    if variance <= 0:
        return 0.0 if estimate else 1.0
    return 2 * float(special.stdtr(df, -abs(estimate) / variance**0.5))


def _scatter_p(groups: Sequence[Floats]) -> float | None:
    """Returns the chance by which groups differ as much if all are alike: one-way analysis of variance.

    None where each has a single member, whose own scatter is then unknown.
    """
    from scipy import special

    total, df = sum(len(group) for group in groups), len(groups) - 1
    within = sum(float(group.var()) * len(group) for group in groups)
    if total - len(groups) < 1 or within <= 0:
        return None
    everything = np.concatenate(groups)
    between = float(everything.var()) * total - within
    f = max(between, 0.0) / df / (within / (total - len(groups)))
    return float(special.fdtrc(df, total - len(groups), f))


def check_settling(settling: Settling | None) -> Iterator[Reason]:
    """Checks whether a run has settled, as far as that is known.

    A wide interval alone is no sign of the contrary: the scatter of few short requests makes one, and it
    stands beside the figure.
    """
    signs = [*_signs(settling)] if settling else []
    if signs:
        yield Reason(code="not_settled", detail="; ".join(signs))


def _signs(settling: Settling) -> Iterator[str]:
    if settling.cut_share > MAX_CUT:
        yield (
            f"rates still changed in the middle of the window: {settling.cut_s:.3g} s were cut from its "
            f"beginning, {settling.cut_share:.0%} of it"
        )
    # A rest that follows a transient has to look settled by itself: its few blocks can hardly prove a change.
    settled_late = settling.cut_share > LATE_CUT
    if settled_late and settling.interactivity is None:
        yield (
            f"the first {settling.cut_s:.3g} s were cut, and the rest is too short to tell whether rates had "
            "settled then"
        )
    figures = (("the output rate", settling.output_rate), ("interactivity", settling.interactivity))
    for name, trend in figures:
        if trend is None:
            continue
        if abs(trend.change) > MAX_CHANGE and (trend.change_p < CHANGE_P or settled_late):
            after = f" after the first {settling.cut_s:.3g} s, which were cut" if settled_late else ""
            yield f"{name} changed by {trend.change:+.1%} over the window{after} (p = {trend.change_p:.1g})"
        elif abs(trend.step) > MAX_STEP and trend.step_p < OTHER_P:
            yield f"{name} stepped by {trend.step:+.1%} within the window (p = {trend.step_p:.1g})"
    trend, p = settling.interactivity, settling.scatter_p
    if trend and p is not None and trend.half_width > MAX_HALF_WIDTH and p < OTHER_P:
        yield (
            f"interactivity is known to ±{trend.half_width:.1%} only (95%, time blocks), more than the "
            f"requests' own scatter explains (p = {p:.1g})"
        )
