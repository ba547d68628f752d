"""The tier of Dynamo's mocker. `make test-dynamo` sets it up and says where it is."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from mocker_runs import Run, measure

from mtpbench.errors import PortInUse
from mtpbench.executors.sockets import choose_port
from mtpbench.store import SweepStore
from mtpbench.sweep import Sweep, load_sweep

NEEDED = ("MTPBENCH_DYNAMO_PYTHON", "MTPBENCH_DYNAMO_MODEL")


@pytest.fixture(scope="session", autouse=True)
def _ports_that_dynamo_can_read() -> Iterator[None]:
    """Dynamo 1.4.2 reads DYN_SYSTEM_PORT as a signed 16-bit number; Linux hands out ports above those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtpbench.executors.local.choose_port", choose_low_port)
        yield


def choose_low_port(wanted: int | None = None) -> int:
    """`choose_port`, but not above 32767."""
    if wanted is not None:
        return choose_port(wanted)
    for port in random.sample(range(20_000, 32_768), 100):
        with contextlib.suppress(PortInUse):
            return choose_port(port)
    pytest.fail("no port between 20000 and 32767 is free")


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
