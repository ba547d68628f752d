"""The tier of real SGLang on the CPU. `make test-sglang` sets it up and says where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.runs import Run, measure, show_tables
from mtpbench.sweep import Sweep, load_sweep

SWEEPS = Path(__file__).resolve().parent / "sweeps"
NEEDED = ("MTPBENCH_SGLANG_PYTHON", "MTPBENCH_CRAFTED")
KILLED = "mtp1"
"""A start takes half a minute, so the arm whose server is killed is measured by what comes after that."""
_measured: list[Run] = []


def _load(name: str) -> Sweep:
    """A sweep of the tier; where SGLang is missing the tier fails, it does not pass by skipping."""
    for variable in NEEDED:
        if variable not in os.environ:
            pytest.fail(f"{variable} is not set: run `make test-sglang`, which sets SGLang up")
    return load_sweep(SWEEPS / f"{name}.yaml")


@pytest.fixture(scope="session")
def sweep() -> Sweep:
    """Off, MTP and pinned acceptance on one server each."""
    return _load("sglang")


@pytest.fixture(scope="session")
def run(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole sweep, measured once, but for the ladder of `killed_run`."""
    points = [point for point in sweep.points if point.arm.name != KILLED]
    done = measure(sweep, points, tmp_path_factory.mktemp("sglang"))
    _measured.append(done)
    return done


@pytest.fixture(scope="session")
def killed_run(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One ladder, whose server is killed in the middle of its first point; the next ones are measured."""
    ladder = [point for point in sweep.points if point.arm.name == KILLED]
    return measure(sweep, ladder, tmp_path_factory.mktemp("sglang-killed"), kill=True)


@pytest.fixture(scope="session")
def routed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two workers behind SGLang's own router."""
    routed = _load("sglang-router")
    return measure(routed, routed.points, tmp_path_factory.mktemp("sglang-router"))


def pytest_terminal_summary() -> None:
    """Show the tables that were measured on the way."""
    show_tables(_measured)
