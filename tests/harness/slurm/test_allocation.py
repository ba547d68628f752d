"""What a job was given, read from its environment and from scontrol."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mtpbench.errors import InputError, RunError
from mtpbench.slurm import allocation
from mtpbench.slurm.allocation import Allocation, expand_nodes, job_gpus_per_node, node_addresses

# As Slurm 22.05 prints it, shortened.
NODES = (
    "NodeName=n0 Arch=x86_64 CoresPerSocket=72 Gres=gpu:gb200:4 NodeAddr=10.0.0.10 NodeHostName=h0 "
    "Version=22.05.8 State=ALLOCATED\n"
    "NodeName=n1 Arch=x86_64 CoresPerSocket=72 Gres=gpu:gb200:4 NodeAddr=n1.rack NodeHostName=h1 "
    "Version=22.05.8 State=ALLOCATED\n"
)
BATCH = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_GPUS_ON_NODE": "4"}


def answer(words: Sequence[str]) -> str:
    if "node" in words:
        return NODES
    return "JobId=12 JobState=RUNNING TRES=cpu=2,mem=4G,node=2,billing=2 TresPerNode=gres:gpu:gb200:3\n"


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("n0", ("n0",)),
        ("n[0-2,7]", ("n0", "n1", "n2", "n7")),
        ("gpu-[008-010]", ("gpu-008", "gpu-009", "gpu-010")),
        ("a[1-2]-x,b,c[3]", ("a1-x", "a2-x", "b", "c3")),
        ("r[1-2]n[01-02]", ("r1n01", "r1n02", "r2n01", "r2n02")),
    ],
)
def test_lists_of_nodes_are_expanded(text: str, nodes: tuple[str, ...]) -> None:
    assert expand_nodes(text) == nodes


@pytest.mark.parametrize("text", ["", "n[0-2", "n[a-b]", "n0,,n1"])
def test_what_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="node"):
        expand_nodes(text)


def test_a_batch_job_knows_its_nodes_and_their_addresses() -> None:
    job = Allocation.from_environment({**BATCH, "SLURMD_NODENAME": "n0"}, answer)
    assert (job.job_id, job.raw_id, job.restart, job.here) == ("12", "12", 0, "n0")
    assert job.nodes == ("n0", "n1")
    assert job.addresses == {"n0": "10.0.0.10", "n1": "n1.rack"}
    assert job.gpus_per_node == 4


def test_a_task_of_an_array_that_was_started_again() -> None:
    more = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    job = Allocation.from_environment({**BATCH, **more}, answer)
    assert (job.job_id, job.raw_id, job.restart) == ("9_3", "12", 2)


def test_a_shell_of_salloc_is_told_its_gpus_by_scontrol() -> None:
    job = Allocation.from_environment({"SLURM_JOBID": "12", "SLURM_NODELIST": "n[0-1]"}, answer)
    assert job.gpus_per_node == 3
    assert job.here is None


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("TRES=cpu=2,node=2,billing=2 TresPerNode=gres:gpu:gb200:4\n", 4),
        ("AllocTRES=cpu=2,node=2,gres/gpu=8,gres/gpu:gb200=8 TresPerNode=gres/gpu:2\n", 2),
        ("AllocTRES=cpu=2,node=2,gres/gpu=8,gres/gpu:gb200=8 x", 4),
        ("TRES=cpu=2,node=2,billing=2", None),
    ],
)
def test_gpus_of_a_job(text: str, gpus: int | None) -> None:
    assert job_gpus_per_node(text, 2) == gpus


def test_a_node_without_an_address_is_its_own_name() -> None:
    assert node_addresses("NodeName=c7 State=DOWN\n") == {"c7": "c7"}


def test_outside_of_an_allocation_the_way_in_is_said() -> None:
    with pytest.raises(InputError, match=r"no Slurm allocation .* `salloc .*mtpbench submit SWEEP"):
        Allocation.from_environment({}, answer)


def test_a_controller_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "RETRY_S", 0.01)
    asked = []

    def first_away(words: Sequence[str]) -> str:
        asked.append(words)
        if len(asked) < 3:
            raise RunError("scontrol ended with 1: Unable to contact slurm controller")
        return answer(words)

    assert Allocation.from_environment(BATCH, first_away).addresses["n0"] == "10.0.0.10"
    monkeypatch.setattr(allocation, "PATIENCE_S", 0.05)

    def away(words: Sequence[str]) -> str:
        raise RunError("Unable to contact slurm controller")

    with pytest.raises(RunError, match="Unable to contact"):
        Allocation.from_environment(BATCH, away)
