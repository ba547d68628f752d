"""Which points make one curve, what repeats become, and what never enters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curve_points import glm5, make_curve, make_points
from mtpbench.errors import InputError
from mtpbench_analysis.curves.curve import Grouping, build_curves, display_name
from mtpbench_analysis.frame import CurvePoint, to_frame


@pytest.mark.parametrize(
    "field",
    [
        "arm",
        "engine",
        "version",
        "image",
        "serving",
        "acceptance_mode",
        "hardware",
        "precision",
        "model",
        "isl",
        "osl",
        "workload",
    ],
)
def test_a_curve_never_mixes(field: str) -> None:
    """Points that differ in a field that changes the question are two curves."""
    (first,) = make_points("mtp", (10.0, 100.0))
    other = 1024 if field in ("isl", "osl") else "something else"
    assert len(build_curves([first, replace(first, **{field: other})])) == 2


def test_simulated_and_measured_points_are_two_curves() -> None:
    (first,) = make_points("mtp", (10.0, 100.0))
    assert len(build_curves([first, replace(first, simulated=True)])) == 2


def test_pooling_is_a_choice() -> None:
    (first,) = make_points("mtp", (10.0, 100.0), serving="aggregated")
    (second,) = make_points("mtp", (20.0, 50.0), serving="disaggregated")
    assert len(build_curves([first, second])) == 2
    (pooled,) = build_curves([first, second], Grouping(pool=("serving",)))
    assert len(pooled.front) == 2
    assert pooled.shared("serving") == "aggregated + disaggregated"


def test_repeats_of_a_recipe_are_averaged_and_counted() -> None:
    runs = [
        *make_points("mtp", (10.0, 100.0), repeat=0, acceptance_length=2.0, source="a"),
        *make_points("mtp", (14.0, 300.0), repeat=1, source="b"),
    ]
    (curve,) = build_curves(runs)
    (measured,) = curve.measured
    assert (measured.x, measured.y, len(measured.runs)) == (12, 200, 2)
    assert measured.mean.acceptance_length == 2.0
    assert measured.mean.source == "a; b"


def test_another_topology_or_pooled_image_is_not_a_repeat() -> None:
    (first,) = make_points("mtp", (10.0, 100.0))
    points = [first, replace(first, topology="1xTP8"), replace(first, image="x")]
    (curve,) = build_curves(points, Grouping(pool=("image",)))
    assert [len(item.runs) for item in curve.measured] == [1, 1, 1]


def test_splitting_is_a_choice() -> None:
    points = make_points("mtp", (10.0, 100.0)) + make_points("mtp", (20.0, 50.0), topology="1xTP8")
    assert len(build_curves(points)) == 1
    labels = [curve.label for curve in build_curves(points, Grouping(split=("topology",)))]
    assert labels == ["MTP (topology unknown)", "MTP (1xTP8)"]


@pytest.mark.parametrize(
    ("pool", "split", "said"),
    [
        (("colour",), (), "can't pool colour; one of method, engine, version"),
        ((), ("engine",), "can't split by engine; one of topology, draft_tokens, depth_rule, date"),
        (("topology",), ("topology",), "both pooled and split"),
    ],
)
def test_a_wrong_name_lists_the_right_ones(pool: tuple[str, ...], split: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Grouping(pool=pool, split=split)


def test_a_label_says_an_image_without_its_registry() -> None:
    points = [
        *make_points("mtp", (10.0, 100.0), image="nvcr.io/nvidia/trt:1.2"),
        *make_points("mtp", (10.0, 100.0), image="nvcr.io/nvidia/trt:1.3"),
    ]
    assert [curve.label for curve in build_curves(points)] == ["MTP (trt:1.2)", "MTP (trt:1.3)"]


def test_repeats_average_acceptance_by_position() -> None:
    points = [
        *make_points("mtp", (10.0, 100.0), acceptance_per_position=(0.8, 0.4), tput_rel_se=0.1),
        *make_points("mtp", (10.0, 100.0), acceptance_per_position=(0.6, 0.2), tput_rel_se=0.1),
    ]
    (curve,) = build_curves(points)
    assert curve.measured[0].mean.acceptance_per_position == pytest.approx((0.7, 0.3))
    assert curve.measured[0].mean.tput_rel_se is None


def test_points_without_a_recipe_are_not_taken_for_repeats() -> None:
    points = make_points("mtp", (10.0, 100.0), (20.0, 50.0), concurrency=None)
    (curve,) = build_curves(points)
    assert len(curve.measured) == 2


def test_an_invalid_point_never_enters_a_curve() -> None:
    good, bad = make_points("mtp", (10.0, 100.0), (20.0, 500.0))
    (curve,) = build_curves([good, replace(bad, valid=False, reasons=("client_saturated",))])
    assert [item.y for item in curve.measured] == [100]


def test_labels_say_what_tells_two_curves_of_an_arm_apart_and_no_more() -> None:
    points = [
        *make_points("off", (10.0, 100.0), engine="vllm", serving="aggregated"),
        *make_points("mtp", (10.0, 100.0), engine="vllm", serving="aggregated"),
        *make_points("mtp", (10.0, 100.0), engine="vllm", serving="disaggregated"),
    ]
    assert [c.label for c in build_curves(points)] == ["Off", "MTP (aggregated)", "MTP (disaggregated)"]


@pytest.mark.parametrize(
    ("arm", "name"), [("off", "Off"), ("mtp", "MTP"), ("mtp-k3", "MTP-k3"), ("ngram", "ngram")]
)
def test_arms_are_named_as_a_reader_knows_them(arm: str, name: str) -> None:
    assert display_name(arm) == name


def test_measured_points_are_sorted_and_the_front_is_part_of_them() -> None:
    curve = make_curve("off", (30.0, 300.0), (10.0, 800.0), (15.0, 100.0), (20.0, 700.0))
    assert [item.x for item in curve.measured] == [10, 15, 20, 30]
    assert [item.x for item in curve.front] == [10, 20, 30]
    assert curve.range_tps == (10, 30)


def test_a_missing_value_of_pandas_is_none_and_lists_are_joined() -> None:
    invalid = CurvePoint(
        arm="mtp", interactivity_tps=1.5, tput_tps_per_gpu=2.0, valid=False, reasons=("a", "b")
    )
    frame = to_frame((*glm5().points, invalid))
    assert frame["engine"].isna().all()
    assert frame["reasons"].iloc[-1] == "a; b"
