"""`mtpbench submit` where nothing is submitted: a dry run, and wishes that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtpbench.cli import app
from mtpbench.errors import InputError

ROOT = Path(__file__).parents[3]
SWEEP = ROOT / "sweeps/dsv4-gb200-sglang.yaml"
CLUSTER = ROOT / "slurm/clusters/gb200-nvl72.yaml"


def submit(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["submit", str(SWEEP), "--cluster", str(CLUSTER), *map(str, arguments)])


def test_a_dry_run_prints_every_script_and_writes_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    result = submit("--dry-run", "--results", results)
    assert result.exit_code == 0
    assert result.output.count(" -m mtpbench job ") == 16
    assert result.output.count(" -m mtpbench tables ") == 1
    assert "--dependency=afterany:JOB1:JOB2" in result.output
    assert not results.exists()


def test_acceptance_that_is_not_that_of_real_use_is_warned_of_before_the_scripts(tmp_path: Path) -> None:
    lines = submit("--dry-run", "--results", tmp_path / "results").output.splitlines()
    warned = [
        i for i, line in enumerate(lines) if line.startswith("# warning: acceptance of mtp is measured")
    ]
    assert len(warned) == 2
    assert max(warned) < next(i for i, line in enumerate(lines) if line.startswith("#!"))


def test_every_repeat_by_restart_gets_a_job(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.read_text("utf-8") + "repeats: 3\nrestart: true\n", "utf-8")
    words = [
        "submit",
        str(path),
        "--cluster",
        str(CLUSTER),
        "--dry-run",
        "--results",
        str(tmp_path / "results"),
    ]
    result = CliRunner().invoke(app, words)
    jobs = re.findall(r" -m mtpbench job \S+/(\S+)\.json", result.output)
    assert len({*jobs}) == len(jobs) == 3 * 16
    assert sum("_s2_" in key for key in jobs) == 16


def test_without_analysis_there_is_no_last_job(tmp_path: Path) -> None:
    result = submit("--dry-run", "--no-analysis", "--results", tmp_path / "results")
    assert "mtpbench tables" not in result.output


def test_an_image_of_another_release_in_the_profile_is_warned_of(tmp_path: Path) -> None:
    """Engines rename options: lines for one release may not start another."""
    profile = tmp_path / "other.yaml"
    text = CLUSTER.read_text("utf-8")
    for image, warns in (("lmsysorg/sglang:v0.5.23", True), ("lmsysorg/sglang:v0.5.12.post1-cu130", False)):
        profile.write_text(text.replace("container:\n", f"container:\n  image: {image}\n"), "utf-8")
        words = ["submit", str(SWEEP), "--cluster", str(profile), "--dry-run"]
        output = CliRunner().invoke(app, words).output
        said = (
            "is of release 0.5.23, and command lines are written for 0.5.12.post1; name it in engine.version"
        )
        assert (said in output) is warns


def test_a_deployment_that_is_larger_than_the_domain_is_refused(tmp_path: Path) -> None:
    profile = tmp_path / "small.yaml"
    profile.write_text("time_limit: 60\nsegment_nodes: 4\n", "utf-8")
    arguments = ["submit", str(SWEEP), "--cluster", str(profile), "--dry-run"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, InputError)
    assert "nodes in one NVLink domain; the cluster's domains have 4" in str(error)


@pytest.mark.parametrize("job", ["x", "12;rm", ""])
def test_what_to_wait_for_is_a_job_number(job: str, tmp_path: Path) -> None:
    error = submit("--dry-run", "--after", job, "--results", tmp_path / "results").exception
    assert isinstance(error, InputError)
    assert "the number of a job" in str(error)


def test_without_slurm_it_says_so_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = submit("--results", tmp_path / "results").exception
    assert isinstance(error, InputError)
    assert "Slurm's programs are not on PATH" in str(error)
    assert not (tmp_path / "results").exists()
