"""`mtpbench doctor SWEEP --parsers --cluster NAME` on a real Slurm: a job of one node asks, and ends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtpbench.parsers.asking import ClusterLauncher, Program, run_asker
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile
from slurm.cluster import PrivateSlurm

pytestmark = pytest.mark.slurm
STAND_INS = Path(__file__).resolve().parents[1] / "fixtures" / "parsers"
SWEEP = """\
sweep: asked
question: Would the engine take it?
model: {{path: "{model}", served_name: m, precision: fp4}}
hardware: gb200-nvl72
engine:
  name: sglang
  version: 0.5.12.post1
  command: [{python}, -m, sglang.launch_server]
  flags: {{all: {flags}}}
workload: {{isl: 64, osl: 64}}
arms: {{off: }}
topologies: [{{aggregated: 1xTP8, concurrency: [1]}}]
"""


def doctor(cluster: PrivateSlurm, folder: Path, flags: str) -> subprocess.CompletedProcess[str]:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}", "utf-8")
    sweep, profile = folder / "sweep.yaml", folder / "here.yaml"
    sweep.write_text(SWEEP.format(model=model, python=sys.executable, flags=flags), "utf-8")
    # Stand-ins of the engine, which a job finds by the cluster's environment.
    profile.write_text(
        f"time_limit: 4:00:00\nenvironment: {{PYTHONPATH: {STAND_INS}, STAND_IN_GPU: '1'}}\n", "utf-8"
    )
    words = (sys.executable, "-m", "mtpbench", "doctor", sweep, "--parsers", "--cluster", profile)
    return subprocess.run(
        [str(word) for word in words],
        env={**cluster.env, "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_lines_are_asked_in_a_job_of_one_node(cluster: PrivateSlurm, tmp_path: Path) -> None:
    taken = doctor(cluster, tmp_path, "{page-size: 4}")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert "2 command lines: 2 accepted" in taken.stdout
    refused = doctor(cluster, tmp_path, "{no-such: 1}")
    assert refused.returncode == 1
    assert "unknown option (parser, 2 lines): unrecognized arguments: --no-such" in refused.stdout


def test_the_job_of_an_asker_that_is_too_slow_is_gone(cluster: PrivateSlurm) -> None:
    profile = ClusterProfile.model_validate({"time_limit": "4:00:00"})
    launcher = ClusterLauncher(profile=profile, slurm=Slurm(cluster.env))
    made = launcher(Program(name="sglang", python=sys.executable))
    answers = run_asker(replace(made, limit_s=4.0, code="import time; time.sleep(600)"), "sglang", [])
    assert "no answer within 4 s" in answers.reason
    cluster.wait_until_idle(20)
