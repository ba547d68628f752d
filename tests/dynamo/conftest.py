"""The tier of Dynamo, its mocker and real workers. `make test-dynamo` sets them up and says where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dynamo_runs import Run, measure

from mtpbench.store import SweepStore
from mtpbench.sweep import Sweep, load_sweep

SWEEPS = Path(__file__).resolve().parent / "sweeps"
NEEDED = {
    "mocker": ("MTPBENCH_DYNAMO_PYTHON", "MTPBENCH_DYNAMO_MODEL"),
    "vllm": ("MTPBENCH_DYNAMO_VLLM_PYTHON", "MTPBENCH_CRAFTED"),
    "sglang": ("MTPBENCH_DYNAMO_SGLANG_PYTHON", "MTPBENCH_CRAFTED"),
}
ATTEMPTS = 3


def sweep_of(engine: str, file: str) -> Sweep:
    """A sweep of the tier; where its engine is missing the tier fails, it does not pass by skipping."""
    for variable in NEEDED[engine]:
        if variable not in os.environ:
            pytest.fail(f"{variable} is not set: run `make test-dynamo`, which sets Dynamo up")
    return load_sweep(SWEEPS / file)


@pytest.fixture(scope="session")
def sweep() -> Sweep:
    """The mocker's sweep."""
    return sweep_of("mocker", "mocker.yaml")


@pytest.fixture(scope="session", params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of real workers."""
    return str(request.param)


@pytest.fixture(scope="session")
def workers(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both arms on real workers of an engine, all on one node."""
    sweep = sweep_of(engine, f"{engine}.yaml")
    store = SweepStore(tmp_path_factory.mktemp(engine), sweep.info)
    return measure(store, sweep.points, gpus_per_node=2, attempts=ATTEMPTS)


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """MTP on a vLLM worker of four data-parallel ranks, two on each of two "nodes" that are this machine."""
    sweep = sweep_of("vllm", "vllm-two-nodes.yaml")
    store = SweepStore(tmp_path_factory.mktemp("two-nodes"), sweep.info)
    return measure(store, sweep.points, gpus_per_node=2, attempts=ATTEMPTS)


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
