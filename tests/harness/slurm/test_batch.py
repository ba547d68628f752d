"""Batch scripts: golden texts, and that a shell reads every hostile word as one word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mtpbench.slurm.cluster_profile import BatchJob, ClusterProfile, batch_text, clock, load_cluster

ROOT = Path(__file__).parents[3]
HOSTILE = (
    "a b",
    "$(touch broken)",
    "`touch broken`",
    "'; touch broken; '",
    '"quoted"',
    "back\\slash",
    "ümlaut 2",
)


def job(**changes: object) -> BatchJob:
    values = {
        "name": "mtpbench.demo.1.0a1b2c3d",
        "nodes": 4,
        "gpus_per_node": 4,
        "log": "/shared/results/demo/.slurm/logs/00001.%j.log",
        "python": "/opt/mtpbench/bin/python",
        "commands": (("job", "/shared/results/demo/.slurm/jobs/mtp_6xDEP8-1xDEP16_12345678.json"),),
    }
    return BatchJob(**{**values, **changes})  # type: ignore[arg-type]


def test_one_deployment_on_an_nvl72() -> None:
    profile = load_cluster(str(ROOT / "slurm/clusters/gb200-nvl72.yaml"))
    assert batch_text(profile, job()) == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=mtpbench.demo.1.0a1b2c3d\n"
        "#SBATCH --partition=gb200\n"
        "#SBATCH --account=benchmarks\n"
        "#SBATCH --nodes=4\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --gres=gpu:gb200:4\n"
        "#SBATCH --segment=4\n"
        "#SBATCH --time=0-04:00:00\n"
        "#SBATCH --output=/shared/results/demo/.slurm/logs/00001.%j.log\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --requeue\n"
        "#SBATCH --signal=B:TERM@120\n"
        "#SBATCH --exclusive\n"
        "#SBATCH --mem=0\n"
        "set -euo pipefail\n"
        "export MODELS=/models\n"
        "exec /opt/mtpbench/bin/python -m mtpbench job "
        "/shared/results/demo/.slurm/jobs/mtp_6xDEP8-1xDEP16_12345678.json\n"
    )


def test_an_array_with_a_throttle_after_other_jobs() -> None:
    profile = ClusterProfile.model_validate(
        {
            "time_limit": 10,
            "gres": None,
            "max_running": 2,
            "requeue": False,
            "pre_commands": [["module", "load", "x"]],
        }
    )
    text = batch_text(
        profile, job(commands=(("job", "a.json"), ("job", "b.json")), nodes=1, after=("12", "13_4"))
    )
    assert text == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=mtpbench.demo.1.0a1b2c3d\n"
        "#SBATCH --array=0-1%2\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --time=0-00:10:00\n"
        "#SBATCH --output=/shared/results/demo/.slurm/logs/00001.%j.log\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --no-requeue\n"
        "#SBATCH --signal=B:TERM@120\n"
        "#SBATCH --dependency=afterany:12:13_4\n"
        "#SBATCH --kill-on-invalid-dep=yes\n"
        "set -euo pipefail\n"
        "module load x\n"
        'case "$SLURM_ARRAY_TASK_ID" in\n'
        "0) exec /opt/mtpbench/bin/python -m mtpbench job a.json ;;\n"
        "1) exec /opt/mtpbench/bin/python -m mtpbench job b.json ;;\n"
        "esac\n"
    )


@pytest.mark.parametrize("word", HOSTILE)
def test_a_shell_reads_every_word_as_it_is(tmp_path: Path, word: str) -> None:
    """Run the script with a stand-in Python that prints its arguments: nothing of a YAML is ever executed."""
    python = tmp_path / f"py {word}".replace("/", "_")
    python.write_text('#!/bin/bash\nprintf "%s\\0" "$V" "$@"\n', "utf-8")
    python.chmod(0o755)
    profile = ClusterProfile.model_validate(
        {"time_limit": 10, "environment": {"V": word}, "pre_commands": [["true", word]]}
    )
    text = batch_text(profile, job(python=str(python), commands=(("job", word), ("job", f"{word}2"))))
    done = subprocess.run(
        ["bash", "-s"],
        input=text.encode(),
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split("\0")[:-1] == [word, "-m", "mtpbench", "job", f"{word}2"]
    assert not (tmp_path / "broken").exists()


def test_odd_characters_in_directives_stay_inside_quotes() -> None:
    profile = ClusterProfile.model_validate(
        {"time_limit": 10, "account": 'a "b" c', "directives": ["--comment=x y"]}
    )
    text = batch_text(profile, job(log="/a b/$(x)/%j.log"))
    assert '#SBATCH --account="a \\"b\\" c"\n' in text
    assert '#SBATCH --output="/a b/$(x)/%j.log"\n' in text
    assert '#SBATCH --comment="x y"\n' in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "0-00:01:00"), (93_784, "1-02:03:04"), (14_400, "0-04:00:00")]
)
def test_clocks(seconds: int, text: str) -> None:
    assert clock(seconds) == text
