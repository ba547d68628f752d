"""Results of schema versions 2 to 4 read, count as measured and recompute to the same figures.

The last version of schema 4 wrote tests/fixtures/results-schema-4 (`mtpbench run sweep.yaml --simulate`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtpbench.errors import StoreError
from mtpbench.records import (
    SCHEMA_VERSION,
    Energy,
    GoldenTable,
    Point,
    PointResult,
    PowerSource,
    Reason,
    RunFacts,
    from_json,
    to_json,
)
from mtpbench.run import plan_run, recompute
from mtpbench.store import SweepStore, figures_moved, read_point, read_raw, read_sweep
from mtpbench.store.migration import _POWER_SOURCES, upgraded
from mtpbench.sweep import load_sweep, simulate
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.importers.results import read_results

FIXTURE = Path(__file__).parents[1] / "fixtures" / "results-schema-4"
INVALID = "dud_1xTP4-1xTP4_c8_r0_d7a435fd"
MTP = "mtp_1xTP4-1xTP4_c8_r0_5c634dc6"
OWN = "own_1xTP4-1xTP4_c8_r0_f57a9448"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE / "schema-4.simulated", tmp_path / "schema-4.simulated"))


def test_results_of_schema_4_read_with_their_words_as_fields(stored: Path) -> None:
    sweep = read_sweep(stored)
    assert (sweep.damaged, sweep.missing, len(sweep.points)) == ({}, (), 6)
    assert [point.point.id for point in sweep.points] == [point.directory.name for point in sweep.points]
    assert [point.point.id for point in sweep.points if not point.result.valid] == [INVALID]
    for point in sweep.points:
        written = json.loads((point.directory / "result.json").read_text())
        assert point.result.energy.source_text == written["energy"]["source"] == "simulated"
        assert point.result.acceptance.source_text == written["acceptance"]["source"]
        assert (point.result.energy.basis, point.result.energy.cross_checked) == ("counter", True)
        assert point.point.simulated
    policy = read_point(stored / MTP).point.arm.speculation.acceptance
    table = GoldenTable(model="deepseek-v4-pro", method="mtp", mode="thinking_on")
    assert (policy.pinned_by, policy.table) == ("golden", table)
    policy = read_point(stored / OWN).point.arm.speculation.acceptance
    assert (policy.pinned_by, policy.table, policy.length) == ("sweep", None, pytest.approx(2.5))


def test_results_of_schema_4_count_as_measured(stored: Path) -> None:
    sweep = simulate(load_sweep(FIXTURE / "sweep.yaml"))
    plan = plan_run(sweep.points, SweepStore(stored.parent, sweep.info))
    assert sorted(plan.done) == sorted(path.name for path in stored.glob("*_*") if path.name != INVALID)


def test_results_of_schema_4_recompute_to_the_same_figures(stored: Path) -> None:
    for point in read_sweep(stored).points:
        before, after = recompute(point.directory)
        assert (before.schema_version, after.schema_version) == (4, SCHEMA_VERSION)
        assert (after.cached_prompt_share, after.tokens_per_chunk is None) == (None, False)
        assert as_before_7(after, schema_version=4, **UNKNOWN_BEFORE_6) == before
        assert read_point(point.directory).result == after
        assert recompute(point.directory) == (after, after)


def test_results_of_schema_4_are_compared(stored: Path) -> None:
    found = read_results(stored)
    assert {one.start for one in found.points} == {None}
    assert [(one.arm, one.concurrency, one.valid) for one in found.points if one.arm in ("mtp", "dud")] == [
        ("mtp", 2, True),
        ("mtp", 8, True),
        ("dud", 8, False),
    ]
    assert {one.power_source for one in found.points} == {"simulated"}
    curves = build_curves([one for one in found.points if one.arm in ("off", "mtp")])
    assert {curve.arm for curve in curves} == {"off", "mtp"}


NEW_IN_4 = {
    "point.json": {"measurement": ("power", "idle_s")},
    "result.json": {"": ("idle", "gpus"), "energy": ("energy_j_by_node", "unused_gpus", "unused_energy_j")},
    "raw.json": {"facts": ("idle", "gpus", "nodes")},
}
UNKNOWN_BEFORE_6: dict[str, Any] = dict.fromkeys(
    ("tokens_per_chunk", "first_chunk_tokens", "tokens_per_burst")
)


def as_before_7(result: PointResult, **changes: Any) -> PointResult:
    """A result without what version 7 brought inside the records of a result."""
    for name in ("ttft_s", "tpot_s", "e2el_s", "ttft_from_schedule_s", "e2el_from_schedule_s"):
        intervals = {f"p{percent}_interval": None for percent in (50, 90, 99)}
        if (distribution := getattr(result, name)) is not None:
            changes[name] = dataclasses.replace(distribution, **intervals)
    energy = dataclasses.replace(result.energy, power_w_per_gpu_by_block=None)
    acceptance = dataclasses.replace(result.acceptance, length_by_block=None, draft_tokens_per_step=None)
    return dataclasses.replace(result, energy=energy, acceptance=acceptance, **changes)


NEW_IN_3 = {"result.json": {"": ("blocks",)}}
New = dict[str, dict[str, tuple[str, ...]]]


def strip(data: dict[str, Any], names: dict[str, tuple[str, ...]]) -> None:
    """Take away keys, by what holds them (an empty name: the record itself)."""
    for holder, keys in names.items():
        inner = data[holder] if holder else data
        for key in keys:
            del inner[key]


@pytest.mark.parametrize(("version", "newer"), [(2, (NEW_IN_3, NEW_IN_4)), (3, (NEW_IN_4,))])
def test_what_an_older_readable_version_wrote_is_read_and_recomputed(
    stored: Path, version: int, newer: tuple[New, ...]
) -> None:
    directory = stored / MTP
    for path in (stored / "sweep.json", *directory.glob("*.json")):
        data = json.loads(path.read_text())
        for names in newer:
            strip(data.get("point", data), names.get(path.name, {}))
        path.write_text(json.dumps({**data, "schema_version": version}))
    # A point that was measured before the newer rules is still the same point.
    point = read_point(directory)
    assert point.point.id == MTP
    assert (point.result.schema_version, point.result.idle, point.result.gpus) == (version, (), ())
    before, after = recompute(directory)
    assert (before.schema_version, after.schema_version) == (version, SCHEMA_VERSION)
    blocks = None if version == 2 else after.blocks
    assert as_before_7(after, schema_version=version, blocks=blocks, **UNKNOWN_BEFORE_6) == before


def test_what_schema_5_wrote_is_read_without_the_columns_that_it_lacked(stored: Path) -> None:
    """It had the fields of today, but the columns of requests of schema 4."""
    directory = stored / MTP
    recompute(directory)
    for path in (stored / "sweep.json", *directory.glob("*.json")):
        data = {**json.loads(path.read_text()), "schema_version": 5}
        if path.name == "result.json":
            old = to_json(as_before_7(from_json(PointResult, data)))
            data = {name: value for name, value in old.items() if name not in UNKNOWN_BEFORE_6}
            del data["cached_prompt_share"]
            data["schema_version"] = 5
        elif path.name in ("point.json", "raw.json"):
            kinds = {"point": Point, "facts": RunFacts}
            data |= {
                name: to_json(from_json(kind, upgraded(kind, data[name])))
                for name, kind in kinds.items()
                if name in data
            }
        path.write_text(json.dumps(data))
    before, after = recompute(directory)
    assert (before.schema_version, after.schema_version) == (5, SCHEMA_VERSION)
    assert as_before_7(after, schema_version=5, **UNKNOWN_BEFORE_6) == before
    (record, *_) = read_raw(directory).requests.records()
    assert (record.cached_prompt_tokens, record.reasoning_tokens) == (None, None)


def test_what_schema_6_wrote_has_no_intervals_and_moved_no_figure(stored: Path) -> None:
    directory = stored / MTP
    recompute(directory)
    path = directory / "result.json"
    new = from_json(PointResult, json.loads(path.read_text()))
    old = as_before_7(new, schema_version=6)
    names = ("p50_interval", "p90_interval", "p99_interval", "power_w_per_gpu_by_block", "length_by_block")
    path.write_text(json.dumps(without(to_json(old), names)))
    before, after = recompute(directory)
    assert (before, after) == (old, new)
    assert new.ttft_s is not None
    assert new.ttft_s.p99_interval is not None
    assert not figures_moved(before, after)
    # What version 6 knew may still have moved, in a record that got new figures too.
    moved = dataclasses.replace(new.ttft_s, p50=new.ttft_s.p50 * 2)
    assert figures_moved(before, dataclasses.replace(after, ttft_s=moved))
    assert figures_moved(before, dataclasses.replace(after, ttft_s=None))
    assert figures_moved(after, before)


def without(value: Any, names: tuple[str, ...]) -> Any:
    """JSON without some keys, wherever they stand."""
    if isinstance(value, dict):
        return {key: without(inner, names) for key, inner in value.items() if key not in names}
    return [without(inner, names) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("text", _POWER_SOURCES)
def test_every_power_source_that_was_stored_in_words_says_the_same_now(text: str) -> None:
    facts = from_json(RunFacts, upgraded(RunFacts, {"power_source": text}))
    assert text == ("none" if facts.power_source is None else str(facts.power_source))


def energy(stored: Path, **changes: Any) -> Energy:
    data = json.loads((stored / MTP / "result.json").read_text())
    data["energy"] |= changes
    return from_json(PointResult, upgraded(PointResult, data)).energy


def test_how_energy_was_found_is_read_from_its_words(stored: Path) -> None:
    words = "nvml energy counter, instant power, GPU scope"
    source = PowerSource(meter="nvml", counter=True, power="instant", scope="gpu")
    plain = energy(stored, source=words)
    assert (plain.source, plain.basis, plain.cross_checked) == (source, "counter", True)
    unchecked = energy(stored, source=f"{words}, not cross-checked")
    assert (unchecked.source, unchecked.basis, unchecked.cross_checked) == (source, "counter", False)
    assert unchecked.source_text == f"{words}, not cross-checked"
    words = "nvml, power averaged over 1 s, module scope (GPU and its Grace), integral of power"
    integral = energy(stored, source=words)
    assert (integral.basis, integral.cross_checked, integral.source_text) == ("integral", None, words)
    for text, reason in (
        ("power_gap", Reason(code="power_gap")),
        ("mig: GPU 0: MIG is on", Reason(code="mig", detail="GPU 0: MIG is on")),
        ("nothing ran", Reason(code="nothing_ran", detail="nothing ran")),
        ("node n2 did not answer", Reason(code="other", detail="node n2 did not answer")),
    ):
        unknown = energy(stored, source="none", energy_j=None, reason=text)
        assert (unknown.source, unknown.basis, unknown.reason, str(unknown.reason)) == (
            None,
            None,
            reason,
            text,
        )


def test_where_counters_came_from_is_read_from_its_words(stored: Path) -> None:
    data = json.loads((stored / MTP / "result.json").read_text())
    for text in (
        "none",
        "vllm /metrics of every decoding worker",
        "sglang /metrics of every decoding worker; a gauge, mean of 12 samples, unweighted",
        "s /metrics of every decoding worker; a gauge, mean of 9 samples, weighted by verification steps",
    ):
        data["acceptance"]["source"] = text
        assert from_json(PointResult, upgraded(PointResult, data)).acceptance.source_text == text


def test_what_pinned_acceptance_keeps_the_id_of_its_point(stored: Path) -> None:
    data = json.loads((stored / MTP / "point.json").read_text())["point"]
    assert from_json(Point, upgraded(Point, data)).id == MTP
    policy = data["arm"]["speculation"]["acceptance"]
    policy["source"] = "drawn by the embedded engine from golden deepseek-v4-pro mtp thinking_on"
    drawn = from_json(Point, upgraded(Point, data))
    assert drawn.arm.speculation.acceptance.pinned_by == "engine"
    # The hash that schema version 4 gave this point.
    assert drawn.id == "mtp_1xTP4-1xTP4_c8_r0_93fb4e0a"
    data["engine"]["name"] = "mocker"
    data["simulation"] = None
    assert from_json(Point, upgraded(Point, data)).simulated
    assert from_json(Point, to_json(drawn)) == drawn


def test_words_that_no_version_wrote_are_refused_with_the_file(stored: Path) -> None:
    path = stored / MTP / "raw.json"
    path.write_text(path.read_text().replace('"simulated"', '"a guess"'))
    with pytest.raises(StoreError, match=r"raw\.json: power source 'a guess' is none that was ever read"):
        read_raw(stored / MTP)
