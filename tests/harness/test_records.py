from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.records import (
    MOST_COUNTED,
    Distribution,
    Point,
    Reason,
    Stalls,
    Topology,
    WorkerGroup,
    decode_json,
    digest,
    from_json,
    known,
    to_json,
    well_formed,
)
from mtpbench.sweep import load_sweep


@pytest.fixture
def point(write_sweep) -> Point:
    return load_sweep(write_sweep()).points[-1]


def test_a_point_survives_json(point: Point) -> None:
    text = json.dumps(to_json(point))
    assert from_json(Point, json.loads(text)) == point
    assert from_json(Point, json.loads(text)).id == point.id


def test_an_unknown_key_is_refused_with_the_valid_ones(point: Point) -> None:
    data = to_json(point)
    data["concurency"] = 3
    with pytest.raises(ValueError, match=r"Point: unknown concurency; valid: sweep, model"):
        from_json(Point, data)


def test_a_missing_key_and_a_wrong_type_are_named() -> None:
    with pytest.raises(ValueError, match="Distribution: missing mean"):
        from_json(Distribution, {"count": 1, "min": 1, "p10": 1, "p50": 1, "p90": 1, "p99": 1, "max": 1})
    with pytest.raises(ValueError, match=r"WorkerGroup.workers: int was expected, not 'two'"):
        from_json(WorkerGroup, {"role": "decode", "workers": "two", "tp": 1})
    with pytest.raises(ValueError, match="'boss' is none of"):
        from_json(WorkerGroup, {"role": "boss", "workers": 2, "tp": 1})


def test_nan_is_never_stored() -> None:
    with pytest.raises(ValueError, match="unknown is null"):
        to_json({"tpot_s": float("nan")})


@pytest.mark.parametrize(
    ("group", "layout", "gpus"),
    [
        ({"workers": 6, "tp": 1, "dp": 8, "ep": 8}, "DEP8", 48),
        ({"workers": 4, "tp": 8}, "TP8", 32),
        ({"workers": 1, "tp": 8, "ep": 8}, "TEP8", 8),
        ({"workers": 2, "tp": 2, "dp": 4, "ep": 8}, "TP2DP4EP8", 16),
    ],
)
def test_layouts_have_the_names_of_the_field(group: dict[str, int], layout: str, gpus: int) -> None:
    made = WorkerGroup(role="decode", **group)
    assert (made.layout, made.gpus) == (layout, gpus)


def test_gpus_of_a_topology_count_prefill_and_decode() -> None:
    prefill = WorkerGroup(role="prefill", workers=6, tp=1, dp=8, ep=8)
    decode = WorkerGroup(role="decode", workers=1, tp=1, dp=16, ep=16)
    topology = Topology(groups=(prefill, decode))
    assert (topology.name, topology.gpus, topology.disaggregated) == ("6xDEP8-1xDEP16", 64, True)


def test_the_id_changes_with_what_is_measured_and_the_deployment_does_not(point: Point) -> None:
    other = dataclasses.replace(point, concurrency=7)
    assert other.id != point.id
    assert other.deployment_key == point.deployment_key
    longer = dataclasses.replace(point, workload=dataclasses.replace(point.workload, osl=99))
    assert longer.deployment_key != point.deployment_key


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_stalls_survive_json_with_their_worst_requests() -> None:
    """A pair of an index and seconds is no list of indices: points with stalls were unreadable once."""
    stalls = Stalls(
        threshold_s=1.0,
        count=2,
        requests=2,
        longest_s=1.39,
        share=0.1,
        over_time=(0, 2),
        worst=((7, 1.39), (3, 1.2)),
    )
    assert from_json(Stalls, json.loads(json.dumps(to_json(stalls)))) == stalls


@pytest.mark.parametrize("worst", [[[7]], [[7, 1.0, 2.0]], [[1.5, 1.0]], [7]])
def test_a_pair_of_another_shape_is_named(worst: object) -> None:
    data = {
        "threshold_s": 1.0,
        "count": 1,
        "requests": 1,
        "longest_s": 1.0,
        "share": 0.1,
        "over_time": [1],
        "worst": worst,
    }
    with pytest.raises(ValueError, match=r"Stalls\.worst\[0\]"):
        from_json(Stalls, data)


@pytest.mark.parametrize(
    ("code", "detail", "headline"),
    [
        ("timeout", "no end", "timeout: no end"),
        ("timeout", "first\nsecond", "timeout: first"),
        ("timeout", "", "timeout"),
        ("timeout", "\nlog", "timeout: "),
        ("other", "", ""),
    ],
)
def test_a_headline_is_the_first_line_of_a_reason(code: str, detail: str, headline: str) -> None:
    assert Reason(code=code, detail=detail).headline == headline


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (0, 0.0),
        (5.5, 5.5),
        (2**53, 2.0**53),
        *((odd, None) for odd in (math.nan, math.inf, -math.inf, -1e-9, 2**53 + 2, 10**400)),
        *((odd, None) for odd in (True, "5", None, [5])),
    ],
)
def test_a_number_from_outside_is_one_within_its_bounds_or_none(value: object, taken: float | None) -> None:
    assert known(value, 0.0, MOST_COUNTED) == taken


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "nul"])
def test_text_that_is_no_json_is_a_value_error_however_deep_it_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_json(text)


@given(st.text(st.characters(exclude_categories=())))
@settings(derandomize=True, deadline=None)
def test_whatever_text_a_record_holds_can_be_stored(text: str) -> None:
    stored = to_json(Reason(code="other", detail=text))["detail"]
    assert stored.encode().decode() == stored == well_formed(text)
    assert len(stored) == len(text)
