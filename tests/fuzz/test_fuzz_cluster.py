"""Cluster files, system-power files and hardware constants: read, or refused with file and line."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.power import provisioned
from mtpbench.slurm.cluster_profile import ClusterProfile, load_cluster, seconds_of
from mtpbench.slurm.submission import BatchJob, batch_text
from mtpbench.yaml_files import read_yaml
from odd_yaml import as_yaml, mutated, odd_files

CLUSTER: dict[str, Any] = {
    "partition": "p",
    "time_limit": "4:00:00",
    "gres": "gpu",
    "max_running": 3,
    "requeue": True,
    "container": {"image": "i.sqsh", "mounts": ["/a:/b"], "flags": ["--container-writable"]},
    "environment": {"A": "b"},
    "pre_commands": [["module", "load", "x"]],
    "directives": ["--exclusive"],
}
SYSTEM: dict[str, Any] = {
    "cpu": {"num_cpu": 2, "tdp_per_cpu": 350, "link": "l", "source_date": "2026-09-24"},
    "accelerator": {"num_accelerator": 8, "tdp_per_accelerator": 1000, "link": "l", "source_date": "2026-09"},
    "scale_up_network": {"num_switches": 0, "tdp_per_switch": 0, "link": "l", "source_date": "2026-09"},
    "cooling": "air",
}
CONSTANTS: dict[str, Any] = {
    "source": "us",
    "hardware": {
        "b200": {
            "gpu": "B200",
            "gpus_per_node": 8,
            "nodes_per_domain": 1,
            "constants": {"2026-09": {"power_kw_per_gpu": 2.0, "usd_per_gpu_h": {"ours": 4.0}}},
        }
    },
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "c.yaml"


def check(path: Path, data: bytes, use: Callable[[], object]) -> None:
    """Uses a file; what is said of it names it, in few words. Anything but a user's error goes through."""
    path.write_bytes(data)
    said = None
    try:
        use()
    except InputError as error:
        said = str(error)
    assert said is None or (str(path) in said and len(said) < 5000)


def use_cluster(path: Path) -> None:
    profile = load_cluster(str(path))
    stored = profile.model_dump(mode="json", by_alias=True)
    assert ClusterProfile.model_validate(stored) == profile
    job = BatchJob(name="n", nodes=1, gpus_per_node=4, log="l", python="python3", commands=(("job", "a"),))
    lines = batch_text(profile, job).split("\n")
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert directives == [*range(1, len(directives) + 1)], "sbatch reads no directive after a command"
    assert lines[len(directives) + 1] == "set -euo pipefail"


def use_constants(path: Path) -> None:
    for name in hardware.names(str(path)):
        hardware.lookup(name, str(path))


def use_system(path: Path) -> None:
    assert provisioned.render(provisioned.system_power(read_yaml(path)))


KINDS = [(CLUSTER, use_cluster), (SYSTEM, use_system), (CONSTANTS, use_constants)]


@pytest.mark.parametrize(("base", "use"), KINDS, ids=["cluster", "system", "constants"])
@settings(max_examples=250)
@given(data=st.data())
def test_one_odd_value(
    path: Path, base: dict[str, Any], use: Callable[[Path], object], data: st.DataObject
) -> None:
    text = data.draw(odd_files(base))
    check(path, text.encode("utf-8", "surrogatepass"), lambda: use(path))


@pytest.mark.parametrize(("base", "use"), KINDS, ids=["cluster", "system", "constants"])
@settings(max_examples=150)
@given(data=st.data())
def test_bytes_of_a_file_changed(
    path: Path, base: dict[str, Any], use: Callable[[Path], object], data: st.DataObject
) -> None:
    changed = data.draw(mutated(as_yaml(base).encode()))
    check(path, changed, lambda: use(path))


@given(st.text(string.digits + ":- \n", max_size=20))
def test_a_time_is_a_limit_or_is_refused(text: str) -> None:
    try:
        seconds = seconds_of(text)
    except ValueError:
        return
    assert 0 <= seconds < 1e10
