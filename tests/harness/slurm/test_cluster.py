"""Cluster profiles: what is understood, and how a slip is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.errors import InputError
from mtpbench.slurm.cluster_profile import ClusterProfile, load_cluster

ROOT = Path(__file__).parents[3]


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_the_example_is_a_profile() -> None:
    profile = load_cluster(str(ROOT / "slurm/clusters/gb200-nvl72.yaml"))
    assert profile.time_limit_s == 4 * 3600
    assert profile.segment_nodes == 18
    assert profile.container is not None
    assert profile.container.mounts == ["/models:/models:ro"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("240", 14_400),
        ("'240'", 14_400),
        ("90:30", 5_430),
        ("1:30", 90),
        ("1:30:00", 5_400),
        ("4:00:00", 14_400),
        ("30:00:00", 108_000),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-00:00:00", 86_400),
        ("1-02:03:04", 93_784),
    ],
)
def test_limits_are_what_slurm_means_by_them(tmp_path: Path, text: str, seconds: int) -> None:
    assert load_cluster(write(tmp_path, f"time_limit: {text}\nwarn_s: 10\n")).time_limit_s == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_limit: 60\npartitoin: x\n", r":2: partitoin: unknown key; did you mean 'partition'\?"),
        ("time_limit: 60\ncontainer: {mount: []}\n", r":2: container.mount: unknown key"),
        ("partition: x\n", r"time_limit: is missing"),
        ("time_limit: 0:05\n", r":1: time_limit: "),
        ("time_limit: soon\n", r":1: time_limit: .*MINUTES, M:SS"),
        ("time_limit: 2\n", r"time_limit is 120 s, and a job is warned 120 s \(warn_s\)"),
        ("time_limit: 0\n", r":1: time_limit: .*greater than or equal to 60"),
        ("time_limit: 1.5\n", r":1: time_limit: 1.5 is no time limit"),
        ("time_limit: UNLIMITED\n", r":1: time_limit: 'UNLIMITED' is no time limit"),
        ("time_limit: 1:75:00\n", r":1: time_limit: .*below 60"),
        ('time_limit: "60\\n"\n', r":1: time_limit: .* is no time limit"),
        ("time_limit: 2026-11-29\n", r":1: time_limit: .* is no time limit"),
        ("time_limit: 060\n", r":1: time_limit: .*leading zeros"),
        ("time_limit: 60\ndirectives: [--job-n=mine]\n", "--job-n is set by mtpbench itself"),
        ('time_limit: 60\nenvironment: {A: "x\\ny"}\n', "environment.A: holds the character U\\+000A"),
        ("- time_limit: 60\n", r":1: a mapping of keys is needed: `time_limit:`"),
        ('time_limit: 60\naccount: "a\\n#SBATCH --uid=0"\n', "one line without control characters"),
        ('time_limit: 60\ndirectives: ["--mem=0\\nrm"]\n', "control characters|long sbatch option"),
        ("time_limit: 60\ndirectives: [--job-name=mine]\n", "--job-name is set by mtpbench itself"),
        ("time_limit: 60\ndirectives: [-c 4]\n", "a long sbatch option such as --mem=0"),
        ("time_limit: 60\nenvironment: {A-B: x}\n", "no name of an environment variable"),
        ("time_limit: 60\npre_commands: [[]]\n", "an empty command"),
        ("time_limit: 60\npre_commands: [module load cuda]\n", r"pre_commands\[0\]"),
        ("time_limit: 60\ncontainer: {mounts: [/models]}\n", "SOURCE:TARGET"),
        ("time_limit: 60\ncontainer: {flags: [--gres=x]}\n", "a flag of pyxis"),
    ],
)
def test_a_slip_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_cluster(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_cluster_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        InputError, match=r"unknown cluster 'nowhere' .* known in slurm/clusters: gb200-nvl72"
    ):
        load_cluster("nowhere")


def test_a_profile_survives_the_way_into_a_job_file() -> None:
    profile = load_cluster(str(ROOT / "slurm/clusters/gb200-nvl72.yaml"))
    assert ClusterProfile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile
