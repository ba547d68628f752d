import json

import pytest
from simulated_points import aggregated, group

from mtpbench.errors import InputError
from mtpbench.simengine.profile import load_profile, names, parse_profile, read_data


@pytest.fixture
def profile():
    return load_profile("dsv4-gb200")


def test_tables_are_kept_as_their_source_gave_them():
    data = read_data("dsv4-gb200")
    assert data["decode_step_ms"]["dep16_k3"][-1] == [256, 114.878]
    assert "Predictions, not measurements" in data["about"]
    assert len(data["decode_step_ms"]) == 12


def test_decode_steps_pass_through_the_knots(profile):
    times = profile.step_times_s(group("decode", 1, "DEP16"), 3, 300)
    assert times[128] == pytest.approx(0.058581)
    assert times[256] == pytest.approx(0.114878)


def test_decode_steps_go_straight_on_beyond_the_table(profile):
    times = profile.step_times_s(group("decode", 1, "DEP16"), 0, 320)
    slope = (37.686 - 33.061) / 64
    assert times[320] == pytest.approx((37.686 + 64 * slope) / 1e3)


def test_dep12_lies_halfway_between_dep8_and_dep16(profile):
    eight, twelve, sixteen = (
        profile.step_times_s(group("decode", 1, f"DEP{n}"), 0, 64)[64] for n in (8, 12, 16)
    )
    assert twelve == pytest.approx((eight + sixteen) / 2)


def test_tensor_parallel_widths_without_a_table_take_the_nearest(profile):
    four, eight = (profile.step_times_s(group("decode", 1, f"TP{n}"), 1, 8)[8] for n in (4, 8))
    assert four == eight


def test_each_draft_beyond_the_tables_costs_what_the_last_one_did(profile):
    two, three, five = (profile.step_times_s(group("decode", 1, "DEP8"), k, 8)[8] for k in (2, 3, 5))
    assert five == pytest.approx(three + 2 * (three - two))


def test_prefill_has_a_fixed_part_and_takes_its_factor(profile):
    line = profile.prefill_line_s(group("prefill", 1, "DEP8"))
    assert line.at(8192) == pytest.approx(0.6603 * 1.104)
    assert 0 < line.at(0) < line.at(100)


def test_factors_scale_and_add():
    data = read_data("dsv4-gb200") | {
        "factors": {"decode_scale": {"tp": 2.0}, "decode_overhead_ms": {"tp": 3.0}, "prefill_scale": 1.0}
    }
    times = parse_profile(data, "here").step_times_s(group("decode", 1, "TP8"), 0, 1)
    assert times[1] == pytest.approx((2 * 9.956 + 3) / 1e3)


@pytest.mark.parametrize("name", names())
def test_every_shipped_profile_loads_under_its_own_name(name):
    assert load_profile(name).name == name


def test_an_unknown_profile_lists_the_shipped_ones():
    with pytest.raises(InputError, match=r"unknown profile 'gb300'.*dsv4-gb200"):
        load_profile("gb300")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode": 1}, "unknown decode; valid: name"),
        ({"decode_step_ms": {"dep16-k3": [[1, 2]]}}, "'dep16-k3' is not named like"),
        (
            {"decode_step_ms": {"dep16_mtp_k3": [[1, 2]]}},
            "nor like dep8_dspark_k5 .of dspark, eagle3, draft_",
        ),
        (
            {"decode_step_ms": {"dep16_ngram_k0": [[1, 2]]}},
            "steps without drafts are the same for all; dep16_k0",
        ),
        ({"decode_step_ms": {"dep16_k3": [[2, 1], [1, 2]]}}, "rising first column"),
        ({"power_w": {"idle": 1}}, "power_w.prefill: a number from 0"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(change, message):
    with pytest.raises(InputError, match=message):
        parse_profile(read_data("dsv4-gb200") | change, "p.json")


def test_a_missing_key_is_named(tmp_path):
    data = read_data("dsv4-gb200")
    del data["prefill_ms"]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"mine\.json: missing prefill_ms"):
        load_profile(str(path))


def with_tables(**tables):
    """The shipped profile with crafted decode tables beside its own: for tests, no figures of any engine."""
    data = read_data("dsv4-gb200")
    return parse_profile(data | {"decode_step_ms": data["decode_step_ms"] | tables}, "crafted.json")


def test_a_method_with_tables_of_its_own_is_played_with_them(profile):
    mine = with_tables(dep8_dspark_k5=[[1, 20.0], [2, 30.0]], dep8_dspark_k6=[[1, 22.0], [2, 34.0]])
    dep8, tp8 = aggregated(1, "DEP8"), aggregated(1, "TP8")
    (decoding,) = dep8.groups
    times = {k: mine.step_times_s(decoding, k, 3, "dspark") for k in (0, 5, 6, 7)}
    scale, added = (
        getattr(mine.factors, name).get("dep", otherwise)
        for name, otherwise in (("decode_scale", 1.0), ("decode_overhead_ms", 0.0))
    )
    assert times[5][1:] == pytest.approx([(ms * scale + added) / 1e3 for ms in (20, 30, 40)])
    # Each draft beyond costs what the last one did, and none costs what it does for all.
    assert times[7] == pytest.approx(2 * times[6] - times[5])
    assert (times[0] == profile.step_times_s(decoding, 0, 3)).all()
    assert mine.step_costs(dep8, "dspark") == "dspark"
    # TP8 has no such table, nor has another method any.
    assert {mine.step_costs(tp8, "dspark"), mine.step_costs(dep8, "ngram")} == {"mtp"}
    assert (mine.step_times_s(decoding, 3, 9) == profile.step_times_s(decoding, 3, 9)).all()


@pytest.mark.parametrize(
    ("layout", "drafts", "method", "message"),
    [
        ("DEP8", 3, "dspark", "has dep8 dspark tables for k = 5 only; k = 3 can't be derived from them"),
        ("DEP8", 6, "dspark", "has dep8 dspark tables for k = 5 only; k = 6 can't be"),
        ("TP8", 5, "dspark", "has no decode table of dspark for tp layouts; it has dep8"),
        ("TP8", 5, "ngram", "has no decode table of ngram for tp layouts; it has none of ngram"),
    ],
)
def test_steps_of_a_method_without_a_table_are_refused_with_what_there_is(layout, drafts, method, message):
    mine = with_tables(dep8_dspark_k5=[[1, 20.0], [2, 30.0]])
    with pytest.raises(InputError, match=message):
        mine.step_times_s(group("decode", 1, layout), drafts, 3, method)
