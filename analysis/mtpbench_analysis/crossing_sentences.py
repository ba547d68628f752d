"""Pure: where curves serve the same, in words."""

from __future__ import annotations

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.crossings import Crossing
from mtpbench_analysis.numbers import listed, rate, speed


def write_crossings(comparison: Comparison) -> tuple[str, ...]:
    """Returns where each curve and the baseline serve the same: the interactivity from which speculation
    pays.
    """
    base = comparison.baseline.label
    sentences = []
    for label, crossings in comparison.crossings.items():
        for crossing in crossings:
            if crossing.gap is None:
                tput = rate(crossing.tput_tps_per_gpu)
                at = f"at {speed(crossing.interactivity_tps)} tok/s/user ({tput} tok/s/GPU)"
            else:
                at = f"somewhere from {crossing.gap.text(speed)} tok/s/user"
            better, worse = ("above", "below") if crossing.wins_above else ("below", "above")
            text = (
                f"{label} and {base} serve the same {at}: {label} wins "
                f"{better} that interactivity and loses {worse} it"
            )
            if (interval := crossing.interval) is not None:
                low, high = speed(interval.low), speed(interval.high)
                text += f"; {interval.confidence:.0%} interval {low} to {high}"
            else:
                text += f"; no interval: {explain_no_crossing_interval(crossing) or 'several crossings'}"
            sentences.append(f"{text}.")
    return (*sentences, *_ties(comparison))


def _ties(comparison: Comparison) -> list[str]:
    """Returns where the curves that serve the most are equal and measured."""
    return [
        f"From {speed(lead.low_tps)} to {speed(lead.high_tps)} tok/s/user "
        f"{listed([comparison.curves[index].label for index in lead.leaders])} are equal: no ratio there "
        "differs from 1.00."
        for lead in comparison.leads
        if lead.equals and lead.is_settled and lead.ratio is not None and lead.ratio.is_equal
    ]


def explain_no_crossing_interval(crossing: Crossing) -> str | None:
    """Returns why a crossing has no interval; None where it has one, or where there are several crossings."""
    if crossing.gap is not None:
        return "the points around it are far apart in throughput"
    share = crossing.unclear_share
    return None if share is None else f"{share:.0%} of the draws do not cross"
