"""A short run measures what a long one does, where its slots do not start in step."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtpbench.records import MeasuringRule, PointResult
from mtpbench.run import run_virtual_point
from mtpbench.sweep import load_sweep, simulate

SWEEP = Path(__file__).parents[3] / "sweeps" / "dsv4-gb200-sglang.yaml"
SETTLED = (255.97, 76.30, 0.8353, 3.487, 0.7581)
"""Off at concurrency 16 on 1xDEP8-4xTP8: tok/s/GPU, tok/s/user, median TTFT in s, J/token, and J/input token
of the prefill workers, over 100 requests a slot after 30, 6 seeds (TTFT with a standard error of 0.006)."""


class Kept:
    """A store that keeps nothing."""

    def write(self, *_: Any) -> None:
        pass


@functools.cache
def short_runs(rule: MeasuringRule) -> list[PointResult]:
    """6 runs of 2 + 10 requests a slot, as the sweep asks."""
    point = next(
        point
        for point in simulate(load_sweep(SWEEP)).points
        if (point.arm.name, point.concurrency) == ("off", 64)
    )
    rules = dataclasses.replace(point.measurement, rule=rule)
    assert (rules.warmup_per_slot, rules.requests_per_slot) == (2, 10)
    return [
        run_virtual_point(
            dataclasses.replace(point, concurrency=16, seed=seed, measurement=rules),
            "start",
            Kept(),  # type: ignore[arg-type]
        )
        for seed in range(6)
    ]


def off_by(results: list[PointResult]) -> list[float]:
    """The shares by which the mean figures are off the settled ones."""
    figures = []
    for result in results:
        assert result.steady
        assert result.ttft_s
        energy = result.energy
        figures.append(
            (
                result.steady.tput_tps_per_gpu,
                result.interactivity_tps,
                result.ttft_s.p50,
                energy.joules_per_token,
                energy.prefill_joules_per_input_token,
            )
        )
    shares: list[float] = (np.array(figures, float).mean(axis=0) / SETTLED - 1).tolist()
    return shares


def test_slots_out_of_step_show_the_energy_and_ttft_of_a_settled_server() -> None:
    """40 seeds: +0.0, +0.0, +0.6, +0.3 and +1.7%; under the older rule −0.6, +0.1, +16, −2.5 and −16%."""
    results = short_runs("2026-11")
    assert all(result.valid for result in results)
    tput, interactivity, ttft, joules, prefill_joules = off_by(results)
    assert abs(tput) < 0.005
    assert abs(interactivity) < 0.003
    assert abs(joules) < 0.01
    # Standard errors of 6 runs: 2% and 1%.
    assert abs(ttft) < 0.06
    assert abs(prefill_joules) < 0.045


def test_the_older_rule_still_starts_them_in_step() -> None:
    _, _, ttft, joules, prefill_joules = off_by(short_runs("2026-05"))
    assert ttft > 0.1
    assert joules < -0.015
    assert prefill_joules < -0.1


def test_the_same_lengths_make_throughput_scatter_less() -> None:
    even, independent = (
        [r.steady.tput_tps_per_gpu for r in short_runs(rule) if r.steady] for rule in ("2026-11", "2026-05")
    )
    assert np.std(even) < 0.6 * np.std(independent)
    assert np.mean(even) == pytest.approx(np.mean(independent), rel=0.015)
