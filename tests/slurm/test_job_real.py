"""Attempts of a real Slurm's jobs: requeued ones go on where the ladder stood, orphans take no place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_sweep import Bench

from slurm.cluster import PrivateSlurm, wait_until

SPLIT = "  - {prefill: 1xTP4, decode: 1xTP4, concurrency: {mtp: [1, 2, 3]}}"


@pytest.fixture
def bench(tmp_path: Path, cluster: PrivateSlurm) -> Bench:
    cluster.clear()
    made = Bench(tmp_path, cluster)
    made.sweep(SPLIT, requests=30)
    return made


def record(bench: Bench, attempt: dict[str, Any], name: str) -> dict[str, Any] | None:
    folder = bench.results / f"tiny/.slurm/attempts/{attempt['job_id']}.{attempt['restart']}"
    path = folder / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def test_a_requeued_job_goes_on_where_its_ladder_stood(bench: Bench) -> None:
    bench.submit("--no-analysis")
    wait_until(lambda: len(bench.valid()) >= 1, "a point", 120, 0.2)
    (first,) = bench.valid()
    stamp = bench.stored("provenance")[first]["started_utc"]
    job = bench.attempts()[0]["job_id"]
    bench.slurm.run("scontrol", "requeue", job)
    wait_until(lambda: len(bench.attempts()) == 2, "a second attempt", 180, 0.3)
    assert "3 valid, 0 invalid, 0 missing" in bench.wait(150)
    assert bench.stored("provenance")[first]["started_utc"] == stamp
    second = bench.attempts()[1]
    assert (second["job_id"], second["restart"]) == (job, 1)
    finished = record(bench, second, "finished")
    assert finished is not None
    assert (finished["outcome"], finished["points_valid"]) == ("done", 3)


def test_an_orphan_whose_servers_were_killed_says_nothing_of_its_points(bench: Bench) -> None:
    """The batch script's node is lost: it goes on there while Slurm ends its steps and requeues the job."""
    bench.submit("--no-analysis")
    wait_until(lambda: len(bench.valid()) >= 1, "a point", 120, 0.2)
    (orphan,) = bench.attempts()
    bench.slurm.kill_node(orphan["nodes"][0], noticed=True)
    try:
        wait_until(lambda: record(bench, orphan, "finished") is not None, "the orphan's end", 120, 0.3)
        finished = record(bench, orphan, "finished")
        assert finished is not None
        assert finished["outcome"] == "superseded"
        assert finished["points_invalid"] == 0
        assert set(bench.stored()) == bench.valid()
        wait_until(lambda: len(bench.attempts()) == 2, "a second attempt", 180, 0.3)
        assert "3 valid, 0 invalid, 0 missing" in bench.wait(150)
    finally:
        bench.slurm.revive_node(orphan["nodes"][0])
