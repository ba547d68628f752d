"""Arms of several methods in a sweep on the embedded engine: what their steps cost, and where which pays.

Step costs here are crafted straight lines, so that the truth is known in closed form; they are no engine's.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mtpbench.cli import app
from mtpbench.errors import SweepError
from mtpbench.plan import estimate_point, plan_sweep
from mtpbench.run import run_virtual_point
from mtpbench.simengine.profile import load_profile
from mtpbench.store import SweepStore, read_raw, read_sweep
from mtpbench.sweep import Sweep, load_sweep, simulate


@dataclass(frozen=True)
class Line:
    """A decode step of n sequences takes `fixed_ms + each_ms × n`, and gives `tokens` to each of them."""

    table: str
    fixed_ms: float
    each_ms: float
    rates: tuple[float, ...] = ()

    @property
    def tokens(self) -> float:
        return 1 + sum(self.rates)

    def interactivity_tps(self, batch: float) -> float:
        return 1e3 * self.tokens / (self.fixed_ms + self.each_ms * batch)

    def batch(self, interactivity_tps: float) -> float:
        return (1e3 * self.tokens / interactivity_tps - self.fixed_ms) / self.each_ms


ARMS = {
    "off": Line("k0", 10.0, 0.10),
    "mtp1": Line("k1", 12.0, 0.20, (0.8,)),
    "mtp3": Line("k3", 15.0, 0.33, (0.8, 0.45, 0.25)),
    "dspark5": Line("dspark_k5", 16.0, 0.60, (0.8, 0.6, 0.4, 0.25, 0.15)),
    "ngram4": Line("ngram_k4", 10.5, 0.25, (0.25, 0.12, 0.08, 0.05)),
}
LADDER = (4, 8, 16, 32, 64, 128, 256, 512)
PROFILE: dict[str, Any] = {
    "name": "crafted",
    "about": "Straight lines for tests.",
    "decode_step_ms": {
        f"tp8_{line.table}": [[n, line.fixed_ms + n * line.each_ms] for n in (1, 2)] for line in ARMS.values()
    },
    "prefill_ms": {"ctx_tp8": [[1, 0.001], [2, 0.0011]], "ctx_dep8": [[1, 0.001], [2, 0.0011]]},
    "prefill_prompt_tokens": 8,
    "kv_tokens_per_rank": {"tp8": 10**8, "dep8": 10**8},
    "transfer_ms": {"base": 0, "per_token": 0},
    "power_w": {"idle": 1, "prefill": 2, "decode": 3},
}
SWEEP = """\
sweep: five
question: Which of five arms serves the most, where?
model: {path: some/model, served_name: m, precision: fp4}
hardware: gb200-nvl72
engine: {name: ENGINE}
workload: {isl: 8, osl: 128}
measurement: {warmup_per_slot: 2, requests_per_slot: ROUNDS, min_requests: 24, min_window_s: 0.1}
arms:
  off:
  mtp1: {draft_tokens: 1, acceptance: {rates: [0.8]}}
  mtp3: {draft_tokens: 3, acceptance: {rates: [0.8, 0.45, 0.25]}}
  dspark5: {method: dspark, draft_tokens: 5, acceptance: {rates: [0.8, 0.6, 0.4, 0.25, 0.15]}}
  ngram4: {method: METHOD, draft_tokens: 4, acceptance: {rates: [0.25, 0.12, 0.08, 0.05]}}
  MORE
topologies:
  - {aggregated: 1xTP8, concurrency: LADDER}
"""


def write(
    folder: Path,
    *,
    engine: str = "",
    ladder: tuple[int, ...] = LADDER,
    rounds: int = 2,
    method: str = "ngram",
    more: str = "",
    profile: dict[str, Any] | None = None,
) -> Path:
    """The sweep of five arms and its profile."""
    (folder / "crafted.json").write_text(json.dumps(profile or PROFILE), "utf-8")
    text = SWEEP.replace("ENGINE", engine or f"simulated, profile: {folder}/crafted.json")
    for name, value in (("LADDER", list(ladder)), ("ROUNDS", rounds), ("METHOD", method), ("MORE", more)):
        text = text.replace(name, str(value))
    path = folder / "five.yaml"
    path.write_text(text, "utf-8")
    return path


def simulated(folder: Path, **settings: Any) -> str:
    """The engine's settings, with what else they should hold."""
    more = "".join(f", {name}: {value}" for name, value in settings.items())
    return f"simulated, profile: {folder}/crafted.json{more}"


def play(sweep: Sweep, results: Path) -> Path:
    store = SweepStore(results, sweep.info)
    store.attach()
    for point in sweep.points:
        run_virtual_point(point, "start", store)
    return results / sweep.info.name


def compared(directory: Path, *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["compare", str(directory), "--format", "json", *words])
    assert done.exit_code == 0, done.output
    (comparison,) = json.loads(done.stdout)["comparisons"]
    found: dict[str, Any] = comparison
    return found


def tput_by_arm(directory: Path) -> dict[str, dict[int, float]]:
    """Throughput by arm and concurrency."""
    found: dict[str, dict[int, float]] = {}
    for stored in read_sweep(directory).points:
        steady = stored.result.steady
        assert steady is not None
        assert steady.tput_tps_per_gpu is not None
        found.setdefault(stored.point.arm.name, {})[stored.point.concurrency] = steady.tput_tps_per_gpu
    return found


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("five")
    return compared(play(simulate(load_sweep(write(folder))), folder / "results"))


def meeting_tps(one: Line, other: Line) -> float:
    """Where both serve the same: at interactivity I an arm serves I × n = (tokens - fixed × I) / each."""
    tokens = one.tokens / one.each_ms - other.tokens / other.each_ms
    return 1e3 * tokens / (one.fixed_ms / one.each_ms - other.fixed_ms / other.each_ms)


def ladder_steps(arm: Line, found_tps: float, true_tps: float) -> float:
    """How many steps of the ladder, each of which doubles the batch, lie between two interactivities."""
    return abs(math.log2(arm.batch(found_tps) / arm.batch(true_tps)))


def test_every_known_crossing_with_off_is_found_within_a_step_of_the_ladder(comparison) -> None:
    found = {label.lower(): crossings for label, crossings in comparison["crossings"].items()}
    assert set(found) == {"mtp1", "mtp3", "dspark5", "ngram4"}
    true_batches = {}
    for name, crossings in found.items():
        (crossing,) = crossings
        true_tps = meeting_tps(ARMS["off"], ARMS[name])
        true_batches[name] = ARMS["off"].batch(true_tps)
        assert crossing["wins_above"]
        assert ladder_steps(ARMS["off"], crossing["interactivity_tps"], true_tps) < 0.25
        assert crossing["interval"]["low"] < true_tps < crossing["interval"]["high"]
    # The truths themselves are apart by more than what is asked of the answers.
    assert {name: round(batch) for name, batch in true_batches.items()} == {
        "mtp1": 300,
        "mtp3": 125,
        "dspark5": 57,
        "ngram4": 45,
    }


def test_the_arm_that_serves_the_most_changes_where_the_lines_meet(comparison) -> None:
    leads = [lead for lead in comparison["leads"] if lead["bound"] == "exact"]
    assert [lead["winner"].lower() for lead in leads] == ["off", "mtp1", "mtp3", "dspark5"]
    for below, above in pairwise(leads):
        arms = ARMS[below["winner"].lower()], ARMS[above["winner"].lower()]
        assert ladder_steps(arms[0], below["high_tps"], meeting_tps(*arms)) < 0.5


def test_a_table_of_depths_reaches_the_envelope_of_the_static_arms(tmp_path) -> None:
    """At each batch the depth that serves the most there: lines meet at 32 and at 300 requests."""
    more = (
        "ruled: {depth: {by_batch: [[1, 32, 3], [33, 300, 1], [301, 1000, 0]]}, "
        "acceptance: {rates: [0.8, 0.45, 0.25]}}"
    )
    ladder = (16, 128, 512)
    sweep = simulate(load_sweep(write(tmp_path, more=more, ladder=ladder)))
    arms = {"off", "mtp1", "mtp3", "ruled"}
    chosen = dataclasses.replace(sweep, points=tuple(p for p in sweep.points if p.arm.name in arms))
    ruled, *static = (tput_by_arm(play(chosen, tmp_path / "results"))[arm] for arm in sorted(arms)[::-1])
    best = {batch: max(arm[batch] for arm in static) for batch in ladder}
    assert all(ruled[batch] >= 0.98 * best[batch] for batch in ladder)
    assert all(any(arm[batch] < 0.97 * best[batch] for batch in ladder) for arm in static), (
        "one depth would do"
    )


def test_a_method_without_step_costs_is_played_with_mtps_and_says_so_everywhere(tmp_path) -> None:
    tables = {name: rows for name, rows in PROFILE["decode_step_ms"].items() if "ngram" not in name}
    lacking = PROFILE | {"decode_step_ms": tables}
    path = write(tmp_path, ladder=(2,), profile=lacking)
    sweep = simulate(load_sweep(path))
    told = {p.arm.name: p.simulation and p.simulation.step_costs for p in sweep.points}
    assert told == {"off": None, "mtp1": None, "mtp3": None, "dspark5": None, "ngram4": "mtp"}
    saying = (
        f"ngram4: the profile {tmp_path}/crafted.json has no step costs of ngram; those of mtp with as many "
        "drafts stand in and are no prediction of ngram"
    )
    assert (sweep.info.confounds, sweep.info.confound_arms) == ((saying,), ("ngram4",))
    planned = CliRunner().invoke(app, ["plan", str(path), "--no-commands"], env={"COLUMNS": "400"})
    assert saying in planned.stdout
    assert "no step costs of ngram: those of mtp with as many drafts stand in" in planned.stdout
    results = play(sweep, tmp_path / "results")
    shown = CliRunner().invoke(app, ["compare", str(results)], env={"COLUMNS": "400"})
    # Once, whatever the number of curves.
    assert " ".join(shown.stdout.split()).count(saying) == 1, shown.output
    # It is MTP of as many drafts that is played.
    as_mtp = simulate(load_sweep(write(tmp_path, ladder=(2,), method="mtp", profile=lacking)))
    (ngram,), (mtp,) = (
        [read_raw(play(s, tmp_path / s.points[-1].id) / s.points[-1].id).requests.end_us.tolist()]
        for s in (sweep, as_mtp)
    )
    assert ngram == mtp


def test_the_id_of_a_point_tells_how_acceptance_scatters_and_stays_where_nothing_is_said(tmp_path) -> None:
    def ids(**settings: Any) -> list[str]:
        path = write(tmp_path, ladder=(2,), engine=simulated(tmp_path, **settings))
        return [point.id for point in load_sweep(path).points]

    plain = ids()
    assert ids(acceptance_shape="null", acceptance_spread="null") == plain
    assert not set(ids(acceptance_shape="lock_step")) & set(plain)
    assert not set(ids(acceptance_spread=0.1)) & set(plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acceptance_shape": "sideways"}, "by_position"),
        ({"acceptance_spread": 0}, "greater than 0"),
        ({"acceptance_spread": 0.5}, "around a mean acceptance length of 1.8 with 1 drafts it lies"),
        ({"acceptance_spread": 0.1, "acceptance_shape": "lock_step"}, "the same for every request"),
    ],
)
def test_shapes_that_cannot_be_are_refused_by_the_plan(tmp_path, settings, message) -> None:
    with pytest.raises(SweepError, match=message):
        load_sweep(write(tmp_path, engine=simulated(tmp_path, **settings)))


def test_a_shape_is_for_the_embedded_engine(tmp_path) -> None:
    with pytest.raises(SweepError, match="`acceptance_shape` is for the simulated engine, not for vllm"):
        load_sweep(write(tmp_path, engine="vllm, acceptance_shape: geometric"))


@pytest.mark.parametrize("shape", ["minimum_variance", "lock_step", "geometric"])
def test_a_shape_moves_the_tails_and_not_the_mean(tmp_path, shape) -> None:
    """Sixteen slots of three drafts: the same acceptance to 2%, and other times of requests."""

    def figures(**settings: Any) -> tuple[float, float]:
        path = write(tmp_path, ladder=(16,), rounds=20, engine=simulated(tmp_path, **settings))
        point = next(p for p in simulate(load_sweep(path)).points if p.arm.name == "mtp3")
        result = run_virtual_point(
            point, "start", SweepStore(tmp_path / "results", simulate(load_sweep(path)).info)
        )
        assert result.acceptance is not None
        assert result.acceptance.length == pytest.approx(2.5, rel=0.02)
        assert result.tpot_s is not None
        assert result.tpot_s.p99 is not None
        assert result.tpot_s.p50 is not None
        return result.tpot_s.p50, result.tpot_s.p99

    (median_s, tail_s), (real_median_s, real_tail_s) = figures(acceptance_shape=shape), figures()
    assert median_s == pytest.approx(real_median_s, rel=0.03)
    if shape == "geometric":
        assert tail_s / median_s > 1.01
    else:
        assert tail_s / median_s < 0.98 * real_tail_s / real_median_s


def estimates(sweep: Sweep) -> Iterator[tuple[str, float]]:
    costs = load_profile(sweep.points[0].simulation.profile)  # type: ignore[union-attr]
    for point in sweep.points:
        yield point.arm.name, estimate_point(point, costs).requests_per_s


def test_an_estimate_takes_the_depth_of_its_batch(tmp_path) -> None:
    """Up to 128 requests three drafts, above none: as fast as that arm there, and as Off."""
    rule = "ruled: {depth: {by_batch: [[1, 128, 3], [129, 1000, 0]]}, acceptance: {rates: [0.8, 0.45, 0.25]}}"
    sweep = load_sweep(write(tmp_path, more=rule))
    found: dict[str, list[float]] = {}
    for name, rate in estimates(simulate(sweep)):
        found.setdefault(name, []).append(rate)
    split = LADDER.index(256)
    assert found["ruled"][:split] == pytest.approx(found["mtp3"][:split])
    assert found["ruled"][split:] == pytest.approx(found["off"][split:])
    assert np.all(np.array(found["mtp3"][split:]) < 0.99 * np.array(found["off"][split:]))
    assert all(estimate.hours for estimate in plan_sweep(sweep))
