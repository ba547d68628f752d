"""The tier of real engines. `make test-engines` sets them up and says where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.runs import Run, measure, show_tables
from mtpbench.sweep import load_sweep

SWEEPS = Path(__file__).resolve().parent / "sweeps"
NEEDED = {"vllm": "MTPBENCH_VLLM_PYTHON", "llamacpp": "MTPBENCH_LLAMA_SERVER"}
_measured: list[Run] = []


@pytest.fixture(scope="session", params=list(NEEDED))
def engine(request: pytest.FixtureRequest) -> str:
    """An engine that is there; where it is not, the tier fails, it does not pass by skipping."""
    name = str(request.param)
    for variable in (NEEDED[name], "MTPBENCH_CRAFTED"):
        if variable not in os.environ:
            pytest.fail(f"{variable} is not set: run `make test-engines`, which sets the engines up")
    return name


@pytest.fixture(scope="session")
def run(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The engine's whole sweep, measured once."""
    sweep = load_sweep(SWEEPS / f"{engine}.yaml")
    done = measure(sweep, sweep.points, tmp_path_factory.mktemp(engine))
    _measured.append(done)
    return done


@pytest.fixture(scope="session")
def killed_run(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One ladder, whose server is killed in the middle of its first point."""
    sweep = load_sweep(SWEEPS / f"{engine}.yaml")
    ladder = [point for point in sweep.points if point.arm.name == "mtp3"]
    return measure(sweep, ladder, tmp_path_factory.mktemp(f"{engine}-killed"), kill=True)


def pytest_terminal_summary() -> None:
    """Show the tables that were measured on the way."""
    show_tables(_measured)
