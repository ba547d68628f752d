"""Pure: the counts that an event of a stream carries: usage, and what an engine tells of its drafts."""

from __future__ import annotations

from typing import Any

from mtpbench.metrics.request_table import UNKNOWN

TOKEN_BITS = 24
UNCOUNTED = (1 << TOKEN_BITS) - 1
"""The token part of a packed chunk whose count the server does not give."""
UNTOLD = (UNKNOWN, UNKNOWN, UNKNOWN)
"""Nothing is told of a request's drafts."""
_TOLD = (
    (
        ("metrics", "speculative_decoding"),
        ("num_spec_steps", "num_draft_tokens", "num_accepted_draft_tokens"),
    ),
    (("timings",), (None, "draft_n", "draft_n_accepted")),
    (
        ("sglext", "spec_tokens_details"),
        ("spec_verify_ct", "spec_num_proposed_drafts", "spec_num_correct_drafts"),
    ),
)
"""Where vLLM (with --per-request-spec-decode-metrics), llama.cpp and SGLang (with the request's key
return_spec_tokens_details) tell verification steps, drafted and accepted tokens."""


def read_told(body: dict[str, Any]) -> tuple[int, int, int]:
    """Returns verification steps, drafted and accepted tokens of a request, from an event at its end.

    `UNTOLD` where the event tells none, or what can't be: more accepted than drafted.
    """
    for path, names in _TOLD:
        told: Any = body
        for name in path:
            told = told.get(name) if isinstance(told, dict) else None
        if isinstance(told, dict):
            steps, drafted, accepted = (
                value if name and type(value := told.get(name)) is int and 0 <= value < UNCOUNTED else UNKNOWN
                for name in names
            )
            if UNKNOWN < accepted <= drafted:
                return steps, drafted, accepted
    return UNTOLD


def read_count(value: Any) -> int:
    """Returns a number of tokens.

    Raises:
        ValueError: the value is no such number, or does not fit into a packed chunk.
    """
    if isinstance(value, (int, float)) and 0 <= value < UNCOUNTED and value == int(value):
        return int(value)
    raise ValueError(f"{value!r} is no number of tokens")


def read_detail(usage: dict[str, Any], group: str, name: str, of_tokens: int) -> int | None:
    """Returns a count of a usage's details; None where there is none, or it is above its whole."""
    details = usage.get(group)
    value = details.get(name) if isinstance(details, dict) else None
    return value if type(value) is int and 0 <= value <= of_tokens else None
