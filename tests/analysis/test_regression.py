"""`mtpbench regress`: what it matches, what it says, and what it refuses to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from mtpbench.errors import InputError, MtpbenchError, NotComparable
from mtpbench_analysis.cli import register
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.regression import Criteria, Regression, find_regression
from mtpbench_analysis.regression.report import heading, sentences, write_regression
from mtpbench_analysis.render.markup import to_markdown
from stored_sweep import write_sweep

LADDER = (1, 4, 16, 64)


def sweep(
    seed: int, *, noise: float = 0.003, factor: float = 1.0, repeats: int = 1, **shared: Any
) -> PointSet:
    """Off and MTP, four concurrencies each, with independent noise; `factor` on both speeds."""
    random = np.random.default_rng([seed, 11])
    points = []
    for repeat in range(repeats):
        for arm in ("off", "mtp"):
            for concurrency in LADDER:
                x, y, z = (float(np.exp(random.normal(0, noise))) for _ in range(3))
                points.append(
                    CurvePoint(
                        arm=arm,
                        interactivity_tps=100 / concurrency**0.3 * factor * x,
                        tput_tps_per_gpu=50 * concurrency**0.7 * factor * y,
                        ttft_p50_s=0.2 / factor * z,
                        acceptance_length=2.5 if arm == "mtp" else None,
                        **{
                            "concurrency": concurrency,
                            "repeat": repeat,
                            "topology": "1xTP8",
                            "gpus": 8,
                            **shared,
                        },
                    )
                )
    return PointSet(sources=(f"sweep {seed}",), points=tuple(points))


def changed(points: PointSet, **fields: Any) -> PointSet:
    return replace(points, points=tuple(replace(point, **fields) for point in points.points))


def sides(factor: float = 1.0, count: int = 3, **more: Any) -> Regression:
    old = [sweep(seed, version="1.2", **more) for seed in range(count)]
    new = [sweep(seed + 50, version="1.3", factor=factor, **more) for seed in range(count)]
    return find_regression(old, new)


def verdicts(regression: Regression, level: Any = "all") -> dict[str, str]:
    return {
        f"{f.metric.key_in('regress')} {f.of}".removesuffix(" all"): f.verdict
        for f in regression.select(level)
    }


def test_a_slower_build_is_found_in_every_metric_arm_and_recipe() -> None:
    found = sides(factor=0.9)
    expected = {"throughput": "slower", "interactivity": "slower", "ttft_p50": "slower"}
    assert {name: verdicts(found)[name] for name in expected} == expected
    assert {f.verdict for f in found.select("arm", "tput_tps_per_gpu")} == {"slower"}
    assert {f.verdict for f in found.select("recipe", "tput_tps_per_gpu")} == {"slower"}
    assert found.select("all", "ttft_p50_s")[0].change == pytest.approx(1 / 0.9 - 1, abs=0.01)
    assert "throughput" not in verdicts(found) or any("slower" in reason for reason in found.gate)


def test_a_faster_build_is_found_too_and_opens_the_gate() -> None:
    found = sides(factor=1.1)
    assert verdicts(found)["throughput"] == verdicts(found)["ttft_p50"] == "faster"
    assert found.gate == ()


def test_two_sweeps_of_one_build_have_no_change_and_an_open_gate() -> None:
    found = sides()
    assert set(verdicts(found).values()) == {"no change"}
    assert found.gate == ()


def test_a_change_that_is_there_but_small_is_no_change_beyond_the_threshold() -> None:
    found = sides(factor=0.99).select("all", "tput_tps_per_gpu")[0]
    assert found.interval is not None
    assert found.interval.high < 0
    assert found.verdict == "no change"


def test_between_the_two_the_answer_is_undecided() -> None:
    assert verdicts(sides(factor=0.972, noise=0.004))["throughput"] == "undecided"


def test_noisy_sweeps_say_what_they_could_have_found_and_close_the_gate() -> None:
    found = sides(noise=0.15, count=2)
    finding = found.select("all", "tput_tps_per_gpu")[0]
    assert finding.verdict == "no power"
    assert finding.smallest is not None
    assert finding.smallest > 0.05
    assert (finding.sweeps_needed or 101) > 2
    text = sentences(found)[0]
    assert "no power" in text
    assert "could only have found" in text
    assert "sweeps of each side would find 3%" in text
    assert "all, tok/s/GPU: no power" in found.gate


def test_one_server_start_each_is_not_trusted_to_the_last_percent() -> None:
    """Repeats that agree to 0.1% clear nothing alone: they share a server start."""
    old, new = (sweep(seed, noise=0.001, repeats=2) for seed in (1, 2))
    careful = find_regression([old], [new])
    assert verdicts(careful)["throughput"] == "no change"
    assert {f.verdict for f in careful.select("arm", "tput_tps_per_gpu")} == {"no power"}
    assert {f.verdict for f in careful.select("recipe", "tput_tps_per_gpu")} == {"no power"}
    sure = find_regression([old], [new], Criteria(start_noise=0.0))
    assert {f.verdict for f in sure.select("recipe", "tput_tps_per_gpu")} == {"no change"}
    assert "nothing is allowed for it" in to_markdown([write_regression(sure)])
    assert "an assumption" in to_markdown([write_regression(careful)])


def test_single_runs_rest_on_the_scatter_over_the_recipes() -> None:
    found = find_regression([sweep(1)], [sweep(2, factor=0.85)])
    finding = found.select("all", "tput_tps_per_gpu")[0]
    assert finding.estimate is not None
    assert finding.estimate.basis == "recipes"
    assert finding.verdict == "slower"


def test_a_single_pair_of_single_runs_is_refused() -> None:
    old, new = (replace(sweep(seed), points=sweep(seed).points[:1]) for seed in (1, 2))
    with pytest.raises(NotComparable, match="nothing tells how far another run would fall: 1 recipe is"):
        find_regression([old], [new])


def accepting(points: PointSet, length: float) -> PointSet:
    moved = (replace(p, acceptance_length=length) if p.arm == "mtp" else p for p in points.points)
    return replace(points, points=tuple(moved))


def test_a_changed_acceptance_length_is_named_as_the_explanation() -> None:
    old, new = [sweep(1), sweep(2)], [sweep(3, factor=0.9), sweep(4, factor=0.9)]
    found = find_regression(old, [accepting(points, 2.2) for points in new])
    assert any("acceptance length of MTP went from 2.50 to 2.20" in text for text in sentences(found))
    same = find_regression(old, [accepting(points, 2.5001) for points in new])
    assert not any("acceptance length of MTP" in text for text in sentences(same))
    assert not any("acceptance length" in reason for reason in found.gate)
    assert "lower" in to_markdown([write_regression(found)])


def test_the_heading_names_what_differs() -> None:
    old = changed(sweep(1), version="1.2", date="2026-11-17", image="r/x:1", settings=("decode: a 1",))
    new = changed(sweep(2), version="1.3", date="2026-11-24", image="r/x:2", settings=("decode: a 2",))
    found = find_regression([old], [new])
    assert "version 1.2 → 1.3" in write_regression(found).heading
    assert "image x:1 → x:2" in write_regression(found).heading
    assert "date 2026-11-17 → 2026-11-24" in write_regression(found).heading
    assert "settings (old only decode: a 1; new only decode: a 2)" in write_regression(found).heading
    assert "Not recorded" not in " ".join(heading(found))
    assert "Nothing recorded differs" in write_regression(find_regression([sweep(1)], [sweep(2)])).heading


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hardware": "h200"}, "they share no value of hardware: old not recorded, new h200"),
        ({"gpus": 4, "topology": "1xTP4"}, "topology: old 1xTP8, new 1xTP4"),
        ({"concurrency": None}, "new side recorded neither concurrency nor rate_rps"),
        ({"valid": False}, "the new side has no valid point"),
    ],
)
def test_nothing_in_common_is_refused_with_the_reason(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(NotComparable, match="no recipe is on both sides") as caught:
        find_regression([sweep(1)], [changed(sweep(2), **fields)])
    assert said in str(caught.value)


def test_points_that_only_cross_are_refused_with_the_closest_pair() -> None:
    old, new = sweep(1), sweep(2)
    crossed = (replace(old.points[0], gpus=4), old.points[1])
    other = (new.points[0], replace(new.points[1], gpus=4))
    with pytest.raises(NotComparable, match="the closest two points differ in gpus"):
        find_regression([replace(old, points=crossed)], [replace(new, points=other)])


def test_simulated_and_measured_are_never_mixed() -> None:
    with pytest.raises(NotComparable, match=r"old: measured; new: simulated"):
        find_regression([sweep(1)], [changed(sweep(2), simulated=True)])


def test_simulated_sweeps_say_so_everywhere() -> None:
    found = find_regression([changed(sweep(1), simulated=True)], [changed(sweep(2), simulated=True)])
    text = to_markdown([write_regression(found)])
    assert write_regression(found).heading.startswith("SIMULATED: ")
    assert text.count("(SIMULATED)") == 5
    assert "> **SIMULATED" in text


def test_recipes_on_several_machines_are_told_apart() -> None:
    both = [
        replace(
            sweep(seed),
            points=(*sweep(seed, hardware="b200").points, *sweep(seed + 9, hardware="h200").points),
        )
        for seed in (1, 2)
    ]
    names = [f.of for f in find_regression([both[0]], [both[1]]).select("recipe", "tput_tps_per_gpu")]
    assert len(set(names)) == len(names) == 16
    assert "Off, conc. 1, 1xTP8, 8 GPUs, b200" in names


def without(points: PointSet, index: int) -> PointSet:
    return replace(points, points=(*points.points[:index], *points.points[index + 1 :]))


def test_a_recipe_of_one_side_is_listed_and_one_that_broke_closes_the_gate() -> None:
    old = [sweep(1), sweep(2)]
    new = [without(sweep(3), 0), without(sweep(4), 0)]
    found = find_regression(old, new)
    assert ("Off, concurrency 1, 1xTP8, 8 GPUs", "old side only") in [
        (u.what, u.reason) for u in found.left_out
    ]
    assert found.gate == ()
    died = replace(sweep(3).points[0], valid=False, reasons=("server_died: exit 1",))
    broken = find_regression(old, [replace(points, points=(died, *points.points)) for points in new])
    assert broken.gate == ("Off, concurrency 1, 1xTP8, 8 GPUs: no valid run in the new sweep",)
    assert any("server_died" in unused.reason for unused in broken.left_out)


def test_a_recipe_that_lacks_a_round_is_left_out_and_listed() -> None:
    found = find_regression([sweep(1, repeats=2)], [without(sweep(2, repeats=2), 0)])
    assert found.select("all", "tput_tps_per_gpu")[0].recipes == 7
    assert "Off, conc. 1, 1xTP8, 8 GPUs: runs are missing, so it was not tested" in found.gate
    assert "8 recipes on both sides, 7 of them tested" in heading(found)[0]
    assert any("runs of other rounds are missing" in unused.reason for unused in found.left_out)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"threshold": 0.0}, "threshold 0%"),
        ({"threshold": 1.2}, "threshold 120%"),
        ({"confidence": 95.0}, "confidence 95"),
        ({"power": 1.0}, "power 1"),
        ({"start_noise": -0.1}, "start noise -10%"),
        ({"threshold": float("nan")}, "threshold nan%"),
    ],
)
def test_wrong_numbers_are_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Criteria(**fields)


def run(*arguments: Any) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["regress", *map(str, arguments)], env={"COLUMNS": "100"})


def files(tmp_path: Path, sweeps: Sequence[PointSet]) -> list[Path]:
    paths = []
    for i, points in enumerate(sweeps):
        path = tmp_path / f"{i}.csv"
        path.write_text(write_points(points.points), "utf-8")
        paths.append(path)
    return paths


def test_files_are_tested_in_the_terminal(tmp_path: Path) -> None:
    old, new = files(tmp_path, [sweep(1), sweep(2, factor=0.8)])
    result = run(old, new)
    assert result.exit_code == 0
    assert "tok/s/GPU, all recipes: slower" in result.output


@pytest.mark.parametrize("name", ["terminal", "md", "json"])
def test_every_format_can_go_to_a_file(tmp_path: Path, name: str) -> None:
    old, new = files(tmp_path, [sweep(1), sweep(2)])
    assert run(old, new, "--format", name, "-o", tmp_path / "out").exit_code == 0
    assert "tok/s/GPU" in (tmp_path / "out").read_text("utf-8")


def test_the_json_holds_every_finding(tmp_path: Path) -> None:
    old, new = files(tmp_path, [sweep(1), sweep(2, factor=0.8)])
    data = json.loads(run(old, new, "--format", "json", "--threshold", 5).output)
    assert data["criteria"]["threshold"] == 0.05
    assert data["gate"]["open"] is False
    first = data["findings"][0]
    assert (first["metric"], first["level"], first["verdict"]) == ("throughput", "all", "slower")
    assert first["change"] == pytest.approx(-0.2, abs=0.01)


@pytest.mark.parametrize(("factor", "noise", "code"), [(1.0, 0.003, 0), (0.8, 0.003, 3), (1.0, 0.15, 3)])
def test_the_gate_closes_when_slower_and_when_blind(
    tmp_path: Path, factor: float, noise: float, code: int
) -> None:
    sweeps = [sweep(seed, noise=noise, factor=factor if seed > 2 else 1.0) for seed in range(6)]
    old, old2, old3, new, new2, new3 = files(tmp_path, sweeps)
    options = ("--old", old2, "--old", old3, "--new", new2, "--new", new3)
    assert run(old, new, *options).exit_code == 0
    result = run(old, new, *options, "--gate")
    error = result.exception
    assert (error.exit_code if isinstance(error, MtpbenchError) else result.exit_code) == code


def lucky(seed: int, start: float) -> PointSet:
    """A sweep whose two deployments have the luck of one server start each."""
    random = np.random.default_rng([seed, 13])
    luck = {arm: float(np.exp(random.normal(0, start))) for arm in ("off", "mtp")}
    points = sweep(seed, noise=0.004)
    moved = [
        replace(
            point,
            interactivity_tps=point.interactivity_tps * luck[point.arm],
            tput_tps_per_gpu=point.tput_tps_per_gpu * luck[point.arm],
        )
        for point in points.points
    ]
    return replace(points, points=tuple(moved))


def test_as_many_sweeps_as_are_asked_for_open_the_gate(tmp_path: Path) -> None:
    """Nothing changed, starts differ as assumed: three sweeps of a side are too few for the default gate."""
    first = find_regression([lucky(1, 0.01)], [lucky(2, 0.01)])
    assert first.is_blind
    needed = first.sweeps_needed
    assert needed is not None

    def share_open(sweeps: int) -> float:
        seeds = np.arange(2 * sweeps)
        plays = [[lucky(int(seed) + 100 * (i + 1), 0.01) for seed in seeds] for i in range(60)]
        return sum(not find_regression(p[:sweeps], p[sweeps:]).gate for p in plays) / 60

    assert share_open(needed) >= 0.7
    assert share_open(3) < 0.5
    old, new = files(tmp_path, [lucky(1, 0.01), lucky(2, 0.01)])
    said = f"If nothing changed, {needed} sweeps of each side"
    assert said in " ".join(run(old, new).output.split())
    assert said in str(run(old, new, "--gate").exception)
    assert json.loads(run(old, new, "--format", "json").output)["gate"]["sweeps_needed"] == needed


def test_a_gate_that_sees_asks_for_no_sweeps() -> None:
    found = find_regression([sweep(i) for i in range(3)], [sweep(i) for i in range(3, 6)])
    assert not found.is_blind
    assert "open the gate" not in to_markdown([write_regression(found)])


def test_repeats_by_restart_count_as_sweeps() -> None:
    def restarted(seed: int, *starts: int) -> PointSet:
        points = sweep(seed, repeats=3)
        return replace(
            points,
            points=tuple(replace(p, start=f"{seed} {p.arm} {starts[p.repeat or 0]}") for p in points.points),
        )

    def basis(*starts: int) -> tuple[str, float]:
        estimate = find_regression([restarted(1, *starts)], [restarted(2, *starts)]).findings[0].estimate
        assert estimate is not None
        return estimate.basis, estimate.unit.df

    assert basis(0, 0, 0)[0] == "rounds"
    assert basis(0, 1, 2)[0] == "sweeps"
    # Two of three rounds in one start: two starts of a side, which is two degrees of freedom, not four.
    assert basis(0, 0, 1)[0] == "sweeps"
    assert basis(0, 0, 1)[1] < basis(0, 1, 2)[1]


def test_one_sweep_counts_once(tmp_path: Path) -> None:
    (path,) = files(tmp_path, [sweep(1)])
    assert "given twice" in str(run(path, path).exception)


def test_results_folders_are_read(tmp_path: Path) -> None:
    result = run(write_sweep(tmp_path / "a"), write_sweep(tmp_path / "b"), "--format", "md")
    assert result.exit_code == 0
    assert "SIMULATED" in result.output
    assert "client_saturated" in result.output.replace("\\", "")


def test_a_sweep_that_lacks_planned_points_closes_the_gate(tmp_path: Path) -> None:
    """The stored sweep has one point that died without figures and one that was never measured."""
    result = run(write_sweep(tmp_path / "a"), write_sweep(tmp_path / "b"), "--start-noise", 0, "--gate")
    assert isinstance(result.exception, MtpbenchError)
    assert "no figures of 2 of 9 planned points" in str(result.exception)
