"""The measuring rule is part of what a point is; a point that names none was measured by the oldest one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from measured import make_point
from mtpbench.cli.run import summary
from mtpbench.errors import SweepError
from mtpbench.records import Measurement, Point, Settling, from_json, to_json
from mtpbench.sweep import load_sweep
from stored_sweep import MTP, store_point, store_result

OLD, NEW = Measurement(), Measurement(rule="2026-11")


def test_a_point_without_a_rule_keeps_its_id_and_is_of_the_oldest() -> None:
    """The id is that of version 0.1."""
    point = make_point()
    assert point.id == "off_1xTP2_c2_r0_f9a7274c"
    written = to_json(point)
    assert written["measurement"].pop("rule") == "2026-05"
    read = from_json(Point, written)
    assert (read, read.id, read.measurement.rule) == (point, point.id, "2026-05")


def test_another_rule_makes_another_point_on_the_same_servers() -> None:
    old, new = make_point(measurement=OLD), make_point(measurement=NEW)
    assert old.id != new.id
    assert old.deployment_key == new.deployment_key
    assert from_json(Point, to_json(new)).id == new.id


def test_sweeps_get_the_newest_rule_unless_they_name_another(write_sweep) -> None:  # type: ignore[no-untyped-def]
    def rules_of(path: Path) -> set[str]:
        return {point.measurement.rule for point in load_sweep(path).points}

    assert rules_of(write_sweep()) == {"2026-11"}
    assert rules_of(write_sweep(("measurement: {", "measurement: {rule: 2026-05, "))) == {"2026-05"}
    with pytest.raises(SweepError, match=r"measurement\.rule: .*'2026-05' or '2026-11'"):
        load_sweep(write_sweep(("measurement: {", "measurement: {rule: 2026-06, ")))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "2026-11: lengths spread evenly, slots out of step, the window from where rates have settled"),
        (
            {"warmup_per_slot: 2": "warmup_per_slot: 1"},
            "slots in step (warmup_per_slot is 1, and spreading them takes 2: energy and TTFT",
        ),
        (
            {"{warmup": "{rule: 2026-05, warmup"},
            "2026-05: lengths drawn independently, slots in step, all of the warm window",
        ),
        (
            {"workload:": "load: {pacing: poisson}\nworkload:", "64]}": "64], rate_rps: [2]}"},
            "measured by rule 2026-11: lengths spread evenly load client:",
        ),
    ],
)
def test_the_plan_says_by_which_rule_it_measures(
    cli, sweeps: Path, tmp_path: Path, changes: dict[str, str], told: str
) -> None:  # type: ignore[no-untyped-def]
    text = (sweeps / "demo.yaml").read_text("utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "rules.yaml").write_text(text, "utf-8")
    _, out, _ = cli("plan", str(tmp_path / "rules.yaml"), "--no-commands")
    assert told in " ".join(out.split())


def test_the_line_of_a_point_says_what_was_cut() -> None:
    point = store_point(MTP, 16)
    result = store_result(point, 60.0, 800.0)
    cut = dataclasses.replace(result, settling=Settling(cut_s=12.34, cut_share=0.2))
    assert "12.3 s before it settled cut" in summary(point, cut)
    for settling in (None, Settling(cut_s=0.0, cut_share=0.0)):
        assert "cut" not in summary(point, dataclasses.replace(result, settling=settling))
