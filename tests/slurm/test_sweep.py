"""Sweeps through a real Slurm, as a user runs them: submit, status, trouble, submit again, compare."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.cluster import PrivateSlurm, wait_until

SWEEP = """
sweep: tiny
question: Does MTP pay on a private cluster?
model: {path: tiny, served_name: tiny, precision: fp4}
hardware: gb200-nvl72
engine:
  name: simulated
  profile: dsv4-gb200
  clock: scaled
  speed: 4
  flags: {all: {stream-interval: 16}}
workload: {isl: 256, osl: 64, range_ratio: 0.9}
measurement:
  {warmup_per_slot: 1, requests_per_slot: %(requests)d, min_requests: 4, min_window_s: 0.2, greedy_prompts: 1}
arms:
  off:
  mtp: {draft_tokens: 3, acceptance: golden}
topologies:
%(topologies)s
"""
DISAGGREGATED = "  - {prefill: 2xTP4, decode: 1xTP4, concurrency: [2, 4]}"
SMALL = "  - {aggregated: 1xTP4, concurrency: [1, 2, 4]}"
PROFILE = """
time_limit: 10:00
gres: gpu:gb200
warn_s: 20
directives: [--mem=100]
"""


class Bench:
    """The command line in a folder of its own, on the private cluster."""

    def __init__(self, folder: Path, slurm: PrivateSlurm) -> None:
        self.folder, self.slurm = folder, slurm
        self.results = folder / "results"
        self.programs = folder.parent / "programs"
        (folder / "mine.yaml").write_text(PROFILE, "utf-8")
        self.sweep(SMALL)

    def sweep(self, topologies: str, requests: int = 3, more: str = "") -> None:
        text = SWEEP % {"topologies": topologies, "requests": requests}
        (self.folder / "tiny.yaml").write_text(text + more, "utf-8")

    def run(self, *words: str, check: bool = True, slurmless: bool = False) -> str:
        own = {"PATH": "/nowhere", "SLURM_CONF": "/nowhere"} if slurmless else {}
        if self.programs.exists():
            own = {"PATH": f"{self.programs}:{self.slurm.env['PATH']}"}
        done = subprocess.run(
            [sys.executable, "-m", "mtpbench", *words],
            cwd=self.folder,
            env={**self.slurm.env, "COLUMNS": "200", **own},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, said
        return said

    def submit(self, *words: str, check: bool = True) -> str:
        return self.run("submit", "tiny.yaml", "--cluster", "mine.yaml", *words, check=check)

    def status(self) -> str:
        return self.run("status", "tiny.yaml")

    def wait(self, limit_s: float = 150.0) -> str:
        """Until no job of the user is left in the queue.

        Points that a busy machine spoiled (`client_saturated`, `not_settled`, and nothing else) are submitted
        once more, as their owner would do.
        """
        wait_until(lambda: not self.jobs(), "no job left", limit_s, 0.5)
        if self.only_saturated():
            self.submit("--no-analysis")
            wait_until(lambda: not self.jobs(), "no job left", limit_s, 0.5)
        return self.status()

    @contextlib.contextmanager
    def frozen_at_sbatch(self) -> Iterator[None]:
        """Within a `with`, the controller freezes when sbatch is called, and thaws at the end."""
        self.programs.mkdir()
        program = self.programs / "sbatch"
        program.write_text(
            f'#!/bin/sh\nkill -STOP {self.slurm.controller}\nexec {shutil.which("sbatch")} "$@"\n', "utf-8"
        )
        program.chmod(0o755)
        try:
            yield
        finally:
            shutil.rmtree(self.programs)
            self.slurm.thaw()

    def only_saturated(self) -> bool:
        """Whether there are invalid points, all of them because this machine could not keep up."""
        codes = {reason["code"] for result in self.stored().values() for reason in result["reasons"]}
        return bool(codes) and codes <= {"client_saturated", "not_settled"}

    def jobs(self) -> list[str]:
        return self.slurm.run("squeue", "-h", "-o", "%A").split()

    def stored(self, name: str = "result") -> dict[str, Any]:
        return {
            path.parent.name: json.loads(path.read_text("utf-8"))
            for path in (self.results / "tiny").glob(f"*/{name}.json")
        }

    def valid(self) -> set[str]:
        return {point for point, result in self.stored().items() if not result["reasons"]}

    def submissions(self) -> int:
        return len(list((self.results / "tiny/.slurm/journal").glob("*.json")))

    def attempts(self) -> list[dict[str, Any]]:
        folder = self.results / "tiny/.slurm/attempts"
        return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/started.json"))]


@pytest.fixture
def bench(tmp_path: Path, cluster: PrivateSlurm) -> Bench:
    cluster.clear()
    folder = tmp_path / "a $(touch broken) 'b\" c"
    folder.mkdir()
    return Bench(folder, cluster)


def test_two_arms_disaggregated_over_three_nodes(bench: Bench) -> None:
    """Router, two prefill and one decode worker as steps on three nodes; the last job makes the tables."""
    bench.sweep(DISAGGREGATED)
    said = bench.submit()
    assert "tables and report after them" in said
    assert "4 valid, 0 invalid, 0 missing" in bench.wait()
    assert len(bench.valid()) == 4
    for provenance in bench.stored("provenance").values():
        assert provenance["executor"] == "slurm"
    (first, *_) = bench.attempts()
    assert len(first["nodes"]) == 3
    assert (bench.results / "tiny/comparison.md").exists()
    assert (bench.results / "tiny/report.html").exists()
    assert not list(bench.folder.glob("broken"))
    assert "nothing to submit: all 4 points are valid" in bench.submit()


def test_a_failing_deployment_beside_good_ones(bench: Bench) -> None:
    """A prefill worker that dies at its start costs its own points, and the status says why."""
    bench.sweep(
        "  - {aggregated: 1xTP4, concurrency: [2]}\n  - {prefill: 1xTP4, decode: 1xTP4, concurrency: [2]}"
    )
    text = (bench.folder / "tiny.yaml").read_text("utf-8")
    fault = "  speed: 4\n  faults: [{kind: exit_before_bind, role: prefill}]\n"
    (bench.folder / "tiny.yaml").write_text(text.replace("  speed: 4\n", fault), "utf-8")
    bench.submit("--no-analysis")
    said = bench.wait()
    assert "2 valid, 2 invalid, 0 missing" in said
    assert "start_failed" in said
    assert "no point was measured: start_failed" in said
    assert "prefill-0" in said


def test_a_real_time_limit_closes_the_point_and_leaves_the_rest(bench: Bench) -> None:
    """Slurm's own warning: the running point is closed, the job ends, and submit asks for the rest."""
    ladder = "  - {aggregated: 1xTP4, concurrency: {mtp: [1, 2]}}"
    (bench.folder / "mine.yaml").write_text(PROFILE.replace("time_limit: 10:00", "time_limit: 1:00"), "utf-8")
    bench.sweep(ladder, requests=600)
    bench.submit("--no-analysis")
    said = bench.wait()
    assert "stopped before its end" in said
    assert "cut_off" in said
    (bench.folder / "mine.yaml").write_text(PROFILE, "utf-8")
    bench.submit("--no-analysis")
    assert bench.submissions() == 2
    bench.run("cancel", "tiny.yaml")


def test_the_load_client_on_nodes_of_its_own(bench: Bench) -> None:
    """Two client processes on two nodes beside the servers': one clock, whose error is recorded."""
    (bench.folder / "mine.yaml").write_text(PROFILE + "client_nodes: 2\n", "utf-8")
    bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [4]}}", more="load: {workers: 2}\n")
    bench.submit("--no-analysis")
    assert "1 valid, 0 invalid, 0 missing" in bench.wait()
    (result,) = bench.stored().values()
    nodes = bench.attempts()[0]["nodes"]
    assert len(nodes) == 3
    assert result["client"]["hosts"] == nodes[1:]
    assert 0 < result["client"]["host_clock_error_s"] < 1


def test_one_configuration_inside_an_allocation(bench: Bench) -> None:
    """The same record as the job makes; it says where it ran."""
    allocate = ("salloc", "--nodes=1", "--gres=gpu:gb200:4", "--mem=100")
    command = (sys.executable, "-m", "mtpbench", "run", "tiny.yaml")
    done = subprocess.run(
        [*allocate, *command, "--only", "mtp*c2", "--executor", "slurm", "--cluster", "mine.yaml"],
        cwd=bench.folder,
        env=bench.slurm.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (provenance,) = bench.stored("provenance").values()
    assert provenance["executor"] == "slurm", done.stdout + done.stderr
    assert any("job" in note for note in provenance["notes"])
    assert len(bench.valid()) == 1, done.stdout + done.stderr


def test_finished_jobs_that_slurm_forgot_are_told_by_their_files(tmp_path: Path) -> None:
    with PrivateSlurm(tmp_path / "slurm", nodes=1, min_job_age_s=2) as slurm:
        bench = Bench(tmp_path, slurm)
        bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [2]}}")
        bench.submit("--no-analysis")
        wait_until(lambda: not slurm.run("squeue", "-h", "-t", "all", "-o", "%A"), "a purge", 90, 0.5)
        said = bench.status()
        assert "done (1 valid, 0 invalid, 0 left)" in said
        assert "nothing to submit: all 1 points are valid" in bench.submit()


def test_a_warning_closes_the_point_and_submit_goes_on(bench: Bench) -> None:
    bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [1, 2]}}", requests=200)
    bench.submit("--no-analysis")
    wait_until(lambda: bench.attempts() != [], "an attempt", 60, 0.3)
    job = bench.attempts()[0]["job_id"]
    wait_until(lambda: "requests" in bench.status(), "load", 60, 0.5)
    # The live view tells the same from files alone: it has no Slurm to ask.
    seen = bench.run("watch", "results/tiny", "--once", slurmless=True)
    assert f"job {job}" in seen
    assert re.search(r"mtp_1xTP4_c[12]_r0, \d+ of \d+ requests", seen), seen
    assert "SIMULATED" in seen
    bench.slurm.run("scancel", "--batch", "--signal=TERM", job)
    said = bench.wait(90)
    assert "stopped before its end" in said
    bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [1, 2]}}", requests=200)
    bench.submit("--no-analysis")
    assert bench.submissions() == 2
    bench.run("cancel", "tiny.yaml")


def test_a_dead_node_requeues_the_job_and_its_orphan_harms_nothing(bench: Bench) -> None:
    bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [1, 2, 3, 4]}}", requests=20)
    bench.submit("--no-analysis")
    wait_until(lambda: len(bench.stored()) >= 1, "a point", 90, 0.2)
    node = bench.attempts()[0]["nodes"][0]
    bench.slurm.kill_node(node, noticed=True)
    wait_until(lambda: len(bench.attempts()) == 2, "a second attempt", 120, 0.3)
    bench.slurm.revive_node(node)
    assert "4 valid, 0 invalid, 0 missing" in bench.wait(150)
    first, second = bench.attempts()
    assert (first["restart"], second["restart"]) == (0, 1)


def test_a_submission_that_seems_to_fail_is_found_again(bench: Bench) -> None:
    """sbatch times out on a frozen controller, and the job runs all the same: it is never submitted twice."""
    with bench.frozen_at_sbatch():
        said = bench.submit("--no-analysis", check=False)
    assert "whether job mtpbench.tiny" in said or "sbatch" in said
    time.sleep(2)
    again = bench.submit("--no-analysis")
    assert "has it already" in again or "all 6 points are valid" in again
    assert bench.submissions() == 1
    assert "6 valid, 0 invalid, 0 missing" in bench.wait()


def test_an_outage_while_looking_is_said_to_be_one(bench: Bench) -> None:
    bench.sweep("  - {aggregated: 1xTP4, concurrency: {mtp: [4]}}", requests=100)
    bench.submit("--no-analysis")
    with bench.slurm.frozen():
        said = bench.status()
    assert "Slurm could not be asked" in said
    assert "Slurm does not answer" in said
    bench.run("cancel", "tiny.yaml")


def test_impossible_wishes_are_refused_before_anything_is_submitted(bench: Bench) -> None:
    ending = set(bench.jobs())  # an earlier test's job may still be listed
    (bench.folder / "mine.yaml").write_text(PROFILE + "partition: nowhere\n", "utf-8")
    assert "partition 'nowhere' is unknown to this Slurm; it has:" in bench.submit(check=False)
    (bench.folder / "mine.yaml").write_text(PROFILE + "segment_nodes: 2\n", "utf-8")
    bench.sweep(DISAGGREGATED)
    assert "needs 3 nodes in one NVLink domain; the cluster's domains have 2" in bench.submit(check=False)
    assert set(bench.jobs()) <= ending


def test_jobs_wait_for_others_and_can_be_cancelled(bench: Bench) -> None:
    other = bench.slurm.submit("sleep 60")
    said = bench.submit("--after", other)
    assert "tables and report after them" in said
    wait_until(lambda: "Dependency" in bench.status(), "waiting for a dependency", 30, 0.5)
    assert "cancelled" in bench.run("cancel", "tiny.yaml")
    wait_until(lambda: bench.jobs() == [other], "only the other job", 30, 0.3)
    bench.slurm.run("scancel", other)
