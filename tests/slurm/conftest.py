"""The tier of a real Slurm: private clusters, started once, cleared before each test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from slurm.cluster import PrivateSlurm

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    _need("slurmctld", "slurmd", "sbatch", "munged")
    with PrivateSlurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def _accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    _need("slurmctld", "slurmd", "sbatch", "munged", "slurmdbd", "mariadbd")
    with PrivateSlurm(tmp_path_factory.mktemp("accounted"), accounting=True, min_job_age_s=2) as slurm:
        yield slurm


@pytest.fixture
def cluster(_cluster: PrivateSlurm) -> PrivateSlurm:
    """Four idle nodes of 4 GPUs, no accounting; the controller remembers jobs for 5 minutes."""
    _cluster.clear()
    return _cluster


@pytest.fixture
def accounted(_accounted: PrivateSlurm) -> PrivateSlurm:
    """The same with accounting; the controller forgets jobs 2 s after their end, or a little later."""
    _accounted.clear()
    return _accounted


def _need(*programs: str) -> None:
    """Fail where a program is missing: the tier does not pass by skipping."""
    for program in programs:
        if shutil.which(program) is None and shutil.which(program, path=SYSTEM_PATH) is None:
            pytest.fail(f"no {program} here: run `make test-slurm`, which installs it")


def pytest_report_header() -> str:
    """Name the version of Slurm that is tested."""
    try:
        said = subprocess.run(("sbatch", "--version"), capture_output=True, text=True, check=False).stdout
    except OSError:
        return "slurm: none"
    return f"slurm: {said.strip()}"
