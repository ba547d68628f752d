"""The tier of Dynamo's mocker. `make test-dynamo` sets it up and says where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mocker_runs import Run, measure

from mtpbench.store import SweepStore
from mtpbench.sweep import Sweep, load_sweep

NEEDED = ("MTPBENCH_DYNAMO_PYTHON", "MTPBENCH_DYNAMO_MODEL")


@pytest.fixture(scope="session")
def sweep() -> Sweep:
    """The tier's sweep; where Dynamo is missing the tier fails, it does not pass by skipping."""
    for variable in NEEDED:
        if variable not in os.environ:
            pytest.fail(f"{variable} is not set: run `make test-dynamo`, which sets Dynamo up")
    return load_sweep(Path(__file__).resolve().parent / "sweeps" / "mocker.yaml")


@pytest.fixture(scope="session")
def aggregated(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both arms on one aggregated worker."""
    points = [point for point in sweep.points if not point.topology.disaggregated]
    return measure(SweepStore(tmp_path_factory.mktemp("aggregated"), sweep.info), points)


@pytest.fixture(scope="session")
def split(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """MTP on one prefill and two decode workers."""
    points = [p for p in sweep.points if p.topology.disaggregated and p.arm.name == "mtp3"]
    return measure(SweepStore(tmp_path_factory.mktemp("split"), sweep.info), points)


@pytest.fixture(scope="session")
def killed(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A ladder of three on the same workers, one of which is killed in the middle of the second point."""
    points = [p for p in sweep.points if p.topology.disaggregated and p.arm.name == "off"]
    return measure(SweepStore(tmp_path_factory.mktemp("killed"), sweep.info), points, kill=("decode-1", 4))
