"""Figures by kind of text, from requests whose steps and speeds are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import MTP, OFF, counter_samples, make_point, make_request
from mtpbench.measure import measure
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import (
    CategoryFigures,
    CounterSource,
    Engine,
    RequestRecord,
    RunFacts,
    from_json,
    to_json,
)
from mtpbench.store import RawPoint

PER_STEP = {"math": 2, "coding": 4}
"""Tokens of every step, and three steps after the first token of every request."""
THREE = (10, 6, 4)
"""Accepted by position, of ten drafts each: with as many steps of each kind the acceptance length is 3."""


def load(kinds: dict[str | None, int], rounds: int = 4, split: bool = False) -> list[RequestRecord]:
    """A slot for each kind of text, whose steps give so many tokens, in an event each or one by one."""
    records = []
    for turn in range(rounds):
        for slot, (kind, per_step) in enumerate(kinds.items()):
            steps = [(turn + 0.25 * (1 + step), 1 + step * per_step) for step in range(4)]
            if split:
                steps = [steps[0]] + [(at, n - i) for at, n in steps[1:] for i in reversed(range(per_step))]
            times, tokens = zip(*steps, strict=True)
            output = 1 + 3 * per_step
            more: dict[str, Any] = {"asked_output_tokens": output, "output_tokens": output, "category": kind}
            record = make_request(turn * len(kinds) + slot, slot, turn, times, warmup=turn < 1)
            records.append(dataclasses.replace(record, chunk_tokens=tokens, **more))
    return records


def figures(
    records: list[RequestRecord], *, arm: Any = MTP, accepted: Any = THREE, flags: Any = None
) -> dict[str | None, CategoryFigures]:
    engine = Engine(name="vllm", flags={"aggregated": flags or {}})
    raw = RawPoint(
        requests=RequestTable.from_records(records),
        counters=tuple(counter_samples(accepted=accepted)) if accepted else (),
        facts=RunFacts(counter_processes=("worker",), counter_source=CounterSource(kind="metrics")),
    )
    result = measure(make_point(arm=arm, engine=engine), raw)
    assert from_json(type(result), to_json(result)) == result
    return {item.category: item for item in result.by_category}


def test_each_kind_of_text_has_its_own_speed_and_tokens_per_step() -> None:
    found = figures(load(PER_STEP))
    assert list(found) == ["coding", "math"]
    for kind, per_step in PER_STEP.items():
        one = found[kind]
        assert one.requests == 3
        assert one.interactivity_tps == pytest.approx(3 * per_step / 0.75)
        assert (one.tokens_per_step, one.steps_from, one.steps_gap) == (per_step, "events", None)
        assert (one.acceptance_length, one.acceptance_gap) == (None, "not_told")


def test_lines_without_a_kind_have_a_row_of_their_own_and_a_dataset_without_kinds_none() -> None:
    assert list(figures(load({"math": 2, None: 4}))) == ["math", None]
    assert figures([dataclasses.replace(record, category=None) for record in load(PER_STEP)]) == {}


def test_without_speculation_each_step_gives_a_token() -> None:
    one = figures(load({"math": 1, "coding": 1}), arm=OFF, accepted=None)["math"]
    assert (one.tokens_per_step, one.acceptance_gap) == (1.0, "speculation_off")


@pytest.mark.parametrize(
    ("options", "gap"),
    [
        ({"flags": {"stream-interval": 4}}, "events_gathered"),
        ({"accepted": None}, "uncounted"),
        ({"accepted": (10, 0, 0)}, "events_split_or_merged"),
        ({"split": True}, "events_split_or_merged"),
    ],
)
def test_where_an_event_may_be_no_step_there_are_no_tokens_per_step(options: Any, gap: str) -> None:
    """Three tokens come with each event, or one where a step's are split: more or fewer than counters say."""
    records = load(PER_STEP, split=options.pop("split", False))
    for one in figures(records, **options).values():
        assert (one.tokens_per_step, one.steps_from, one.steps_gap) == (None, None, gap)
        assert one.interactivity_tps


def test_an_engine_that_tells_accepted_drafts_tells_steps_whatever_its_events_hold() -> None:
    """As llama.cpp does, which sends one token an event and counts no steps."""
    records = [
        dataclasses.replace(r, draft_tokens=9, accepted_draft_tokens=3 * (PER_STEP[str(r.category)] - 1))
        for r in load(PER_STEP, split=True)
    ]
    for kind, one in figures(records).items():
        assert (one.tokens_per_step, one.steps_from) == (PER_STEP[str(kind)], "engine")
        assert (one.acceptance_length, one.acceptance_gap) == (None, "not_told")
    records[4] = dataclasses.replace(records[4], draft_tokens=None, accepted_draft_tokens=None)
    assert figures(records)[records[4].category].steps_gap == "events_split_or_merged"


def test_an_engine_that_tells_steps_tells_the_acceptance_length() -> None:
    told = {"math": 3, "coding": 9}
    records = [
        dataclasses.replace(r, drafts=3, draft_tokens=9, accepted_draft_tokens=told[str(r.category)])
        for r in load(PER_STEP)
    ]
    found = figures(records)
    assert {kind: one.acceptance_length for kind, one in found.items()} == {"math": 2.0, "coding": 4.0}
    undrafted = [dataclasses.replace(r, drafts=0, draft_tokens=0, accepted_draft_tokens=0) for r in records]
    assert {one.acceptance_gap for one in figures(undrafted).values()} == {"no_drafts"}
    more = [dataclasses.replace(r, drafts=2, draft_tokens=9, accepted_draft_tokens=9) for r in records]
    assert {one.acceptance_gap for one in figures(more).values()} == {"impossible"}


@given(
    st.lists(st.sampled_from(["math", "coding", None]), min_size=18, max_size=18), st.permutations(range(9))
)
def test_the_kinds_share_out_all_counted_requests_and_all_their_tokens(
    kinds: list[str | None], accepted: list[int]
) -> None:
    """However requests are named: each counts once, and steps weigh the kinds' means to that of all."""
    records = load({str(i): 1 + i % 4 for i in range(3)}, rounds=6)
    records = [
        dataclasses.replace(r, category=kind, drafts=3, draft_tokens=9, accepted_draft_tokens=accepted[i % 9])
        for i, (r, kind) in enumerate(zip(records, kinds, strict=True))
    ]
    found = figures(records, accepted=(6, 2, 2)).values()
    counted = [r for r in records if not r.warmup]
    if found:
        assert sum(one.requests for one in found) == len(counted)
        mean = sum(one.requests * (one.acceptance_length or 0) for one in found) / len(counted)
        assert mean == pytest.approx(
            1 + sum(r.accepted_draft_tokens or 0 for r in counted) / 3 / len(counted)
        )
