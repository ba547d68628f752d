"""Pure: TensorRT-LLM's counters of speculation, out of its page for Prometheus.

Source: TensorRT-LLM's metrics/collector.py (names, and what they count) and its pull requests; read, not run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from mtpbench.records import SpecCounters
from mtpbench.served import MOST_POSITIONS, Metric, metrics

_PREFIX = "trtllm_spec_decode_"
_CONFIGURATION = "trtllm_speculative_config_info"
_OF_REQUESTS = ("drafted_tokens_total", "accepted_tokens_total")
_OF_ITERATIONS = ("num_draft_tokens_total", "num_accepted_tokens_total")


def counters(metrics_text: str) -> SpecCounters | None:
    """Returns drafted and accepted tokens, by position and with steps where the release counts them.

    By position, of finished requests of all ranks (since 1.3.0rc19, #12636): each step drafts the first
    position once, so that its drafts are the steps. Until #17082 (1.3.0rc24 or rc25) the prefill of a request
    counts as a step too, one that accepts nothing.
    Else of all iterations (since 1.3.0rc12, #12545), which count no steps: these follow from the drafts of a
    step in the engine's own configuration, and are None where it does not tell them. Under attention DP they
    are rank 0's, since 1.3.0rc15 (#13649) once for each rank: the acceptance is that of rank 0's requests.
    A counter has no series before it counts.

    Raises:
        ValueError: the text is not Prometheus's exposition format, or a value is no count.
    """
    found = metrics(metrics_text, (_PREFIX, _CONFIGURATION))
    drafted, accepted = (_by_position(found, name) for name in _OF_REQUESTS)
    if any(drafted.values()):
        return SpecCounters(
            drafts=drafted[0],
            draft_tokens=sum(drafted.values()),
            accepted_tokens=sum(accepted.values()),
            per_position=tuple(accepted[i] for i in range(1 + max(drafted))),
            series={m.series: m.amount for name in _OF_REQUESTS for m in _named(found, name)},
        )
    tokens, taken = ([m.amount for m in _named(found, name)] for name in _OF_ITERATIONS)
    if not tokens:
        return None
    drafts_a_step = _drafts_a_step(found)
    return SpecCounters(
        drafts=sum(tokens) / drafts_a_step if drafts_a_step else None,
        draft_tokens=sum(tokens),
        accepted_tokens=sum(taken),
        series={m.series: m.amount for name in _OF_ITERATIONS for m in _named(found, name)},
    )


def _named(found: Sequence[Metric], name: str) -> list[Metric]:
    return [metric for metric in found if metric.name == _PREFIX + name]


def _by_position(found: Sequence[Metric], name: str) -> Mapping[int, float]:
    counts: defaultdict[int, float] = defaultdict(float)
    for metric in _named(found, name):
        counts[metric.whole("token_position", MOST_POSITIONS - 1)] += metric.amount
    return counts


def _drafts_a_step(found: Sequence[Metric]) -> int | None:
    """Returns the drafts of a step in the engine's own configuration; None where it does not tell them."""
    told = {m.whole("spec_num_tokens", MOST_POSITIONS) for m in found if m.labels.get("spec_num_tokens")}
    return (told.pop() or None) if len(told) == 1 else None
