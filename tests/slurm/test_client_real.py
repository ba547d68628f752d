"""What our Slurm class makes of a real one, in good times and bad."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtpbench.slurm.client import QueryResult, Slurm, Submitted
from mtpbench.slurm.states import JobStatus, cause
from slurm.cluster import PrivateSlurm, wait_until
from slurm.guardian import left_over

pytestmark = pytest.mark.slurm
SHORT_S = 60.0


def ours(slurm: PrivateSlurm) -> Slurm:
    return Slurm(slurm.env)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., Submitted]:
    """Submits commands under a name, through our class."""

    def make(slurm: PrivateSlurm, name: str, commands: str, *words: str) -> Submitted:
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/bash\n{commands}\n")
        options = (f"--job-name={name}", f"--output={tmp_path}/%A_%a.log", "--open-mode=append", *words)
        return ours(slurm).submit(script, options)

    return make


def see(slurm: PrivateSlurm, job_id: str) -> JobStatus | None:
    result = ours(slurm).query([], [job_id])
    assert result.answer == "ok", result.error
    return result.statuses.get(job_id)


def watch(
    slurm: PrivateSlurm, job_id: str, *until: str, limit_s: float = SHORT_S
) -> list[tuple[str, int | None]]:
    """The states and restart counts of a job, as they follow each other, up to one of those in `until`."""
    seen: list[tuple[str, int | None]] = []

    def reached() -> bool:
        status = see(slurm, job_id)
        assert status is not None, f"{job_id} vanished after {seen}"
        if not seen or seen[-1] != (status.state, status.restarts):
            seen.append((status.state, status.restarts))
        return status.state in until

    wait_until(reached, f"job {job_id} to be {' or '.join(until)}; saw {seen}", limit_s, 0.1)
    return seen


def wait_for_absence(slurm: PrivateSlurm, job_id: str) -> None:
    """Wait until the controller itself has forgotten a job; it looks twice a minute."""
    said = lambda: slurm.run("scontrol", "-o", "show", "job", job_id, check=False)  # noqa: E731
    wait_until(lambda: not said(), f"job {job_id} to be forgotten", 90, 0.5)


# --- good times ---


def test_a_job_is_submitted_seen_and_cancelled(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    job = submit(cluster, "good", "sleep 60", "-N2", "--gpus-per-node=4", "-t", "5").job_id
    assert job
    watch(cluster, job, "running")
    status = see(cluster, job)
    assert status is not None
    assert (status.name, status.nodes, status.restarts) == ("good", "n[0-1]", 0)
    assert 200 < (status.time_left_s or 0) <= 300
    assert ours(cluster).cancel([job]) is None
    watch(cluster, job, "cancelled")
    assert ours(cluster).cancel([job, "999999"]) is None, "it is gone already"


def test_odd_names_come_back_as_they_went(cluster: PrivateSlurm, submit: Callable[..., Submitted]) -> None:
    name = 'a|b $(touch x) `id` "q" \'é|.\n7|RUNNING|x'
    job = submit(cluster, name, "true").job_id
    assert job
    assert ours(cluster).query([name], [job]).statuses[job].name == name
    assert set(ours(cluster).find_by_name(name).statuses) == {job}


def test_each_task_of_an_array_is_seen(cluster: PrivateSlurm, submit: Callable[..., Submitted]) -> None:
    job = submit(
        cluster, "array", "[ $SLURM_ARRAY_TASK_ID != 1 ] || exit 3; sleep 60", "--array=0-3%2"
    ).job_id
    assert job
    watch(cluster, f"{job}_1", "failed")
    wait_until(
        lambda: (see(cluster, f"{job}_2") or pytest.fail("gone")).state == "running", "the next task", 20
    )
    statuses = ours(cluster).query(["array"], [job]).statuses
    assert {task: status.state for task, status in statuses.items()} == {
        f"{job}_0": "running",
        f"{job}_1": "failed",
        f"{job}_2": "running",
        f"{job}_3": "pending",
    }
    assert cause(statuses[f"{job}_1"]) == "exit code 3"
    assert ours(cluster).cancel([f"{job}_0", f"{job}_3"]) is None
    watch(cluster, f"{job}_3", "cancelled")


def test_a_signal_reaches_the_scripts_that_run_and_leaves_those_that_wait(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    commands = "trap 'echo got it; exit 9' TERM; sleep 60 & wait"
    running, waiting = (submit(cluster, "signal", commands, *words).job_id for words in ((), ("-H",)))
    assert running
    assert waiting
    watch(cluster, running, "running")
    time.sleep(0.5)
    began = time.monotonic()
    assert ours(cluster).cancel([running, waiting], signal="TERM") is None
    assert time.monotonic() - began < 10, "scancel tries long to signal a job that waits"
    watch(cluster, running, "failed")
    assert cause(see(cluster, running) or pytest.fail("gone")) == "exit code 9"
    assert (see(cluster, waiting) or pytest.fail("gone")).state == "pending"


def test_what_a_cluster_is(cluster: PrivateSlurm) -> None:
    slurm = ours(cluster)
    assert slurm.available() is None
    assert slurm.partitions() == ("batch",)
    assert (slurm.version() or "").startswith(("22.", "23.", "24.", "25."))


def test_a_job_that_never_was_is_absent(cluster: PrivateSlurm) -> None:
    result = ours(cluster).query(["x"], ["999999"])
    assert (result.answer, result.statuses, result.error) == ("ok", {}, None)
    assert ours(cluster).find_by_name("no such name") == QueryResult(answer="ok")


# --- a controller that does not answer ---


def test_the_job_runs_although_sbatch_failed(cluster: PrivateSlurm, submit: Callable[..., Submitted]) -> None:
    with cluster.frozen():
        answer = submit(cluster, "lost-answer", "sleep 60")
        assert answer.job_id is None
        assert "timed out" in (answer.error or "").lower()
        unknown = ours(cluster).find_by_name("lost-answer")
        assert unknown.answer == "failed", "nobody knows yet whether the job runs"
    found = ours(cluster).find_by_name("lost-answer")
    assert [status.name for status in found.statuses.values()] == ["lost-answer"]
    (job,) = found.statuses
    watch(cluster, job, "running")


def test_no_job_runs_when_sbatch_never_reached_the_controller(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    answer = submit(cluster, "refused", "true", "--partition=none")
    assert answer.job_id is None
    assert "partition" in (answer.error or "")
    assert ours(cluster).find_by_name("refused") == QueryResult(answer="ok")


def test_a_frozen_controller_at_poll_is_a_failed_query(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    job = submit(cluster, "polled", "sleep 60").job_id
    assert job
    with cluster.frozen():
        result = ours(cluster).query(["polled"], [job])
        assert (result.answer, dict(result.statuses)) == ("failed", {})
        assert "timed out" in (result.error or "").lower()
        hasty = Slurm(cluster.env, timeout_s=0.5).query(["polled"], [job])
        assert hasty.error == "squeue did not answer within 0.5 s"
        assert "timed out" in (ours(cluster).cancel([job]) or "").lower()
    assert (see(cluster, job) or pytest.fail("gone")).state in ("running", "cancelled", "completing")


# --- jobs that end badly ---


def test_a_requeued_job_of_a_lost_node_runs_again_while_its_orphan_goes_on(
    cluster: PrivateSlurm, submit: Callable[..., Submitted], tmp_path: Path
) -> None:
    commands = f"while sleep 0.2; do date +%s.%N > {tmp_path}/$SLURMD_NODENAME; done"
    job = submit(cluster, "requeue", commands, "--requeue", "--exclude=n0,n1").job_id
    assert job
    watch(cluster, job, "running")
    node = (see(cluster, job) or pytest.fail("gone")).nodes
    assert node in ("n2", "n3")
    wait_until((tmp_path / node).exists, "the job to write", 10)
    cluster.kill_node(node, noticed=True)
    orphan = (tmp_path / node).read_text()
    sequence = watch(cluster, job, "pending") + watch(cluster, job, "running")
    assert sequence[-1] == ("running", 1)
    assert (see(cluster, job) or pytest.fail("gone")).nodes == ({"n2", "n3"} - {node}).pop()
    wait_until(lambda: (tmp_path / node).read_text() not in ("", orphan), "the orphan to go on", 10)
    cluster.revive_node(node)
    cluster.run("scancel", job)
    cluster.wait_until_idle()


def test_a_job_that_may_not_be_requeued_fails_with_its_node(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    job = submit(cluster, "lost", "sleep 60", "--no-requeue", "-N2", "--nodelist=n[2-3]").job_id
    assert job
    watch(cluster, job, "running")
    cluster.kill_node("n3")
    watch(cluster, job, "node_fail", limit_s=50)
    words = cause(see(cluster, job) or pytest.fail("gone"))
    assert words in ("node n3 failed", "one of its nodes n[2-3] failed"), "22.05 does not tell which"


def test_limits_dependencies_and_impossible_requests(
    cluster: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    limited = submit(cluster, "limit", "sleep 300", "-t", "10").job_id
    bad = submit(cluster, "bad", "kill -SEGV $$").job_id
    never = submit(cluster, "never", "true", f"--dependency=afterok:{bad}").job_id
    dropped = submit(
        cluster, "dropped", "true", f"--dependency=afterok:{bad}", "--kill-on-invalid-dep=yes"
    ).job_id
    refused = submit(cluster, "gpus", "true", "--gpus-per-node=9")
    assert refused.job_id is None
    assert "not available" in (refused.error or "")
    watch(cluster, limited, "running")
    cluster.end_time_limit(limited)
    watch(cluster, bad, "failed")
    wait_until(lambda: (see(cluster, never) or pytest.fail("gone")).dependency_never, "the dependency", 30)
    watch(cluster, dropped, "cancelled")
    watch(cluster, limited, "timeout", limit_s=50)
    assert [cause(see(cluster, job) or pytest.fail("gone")) for job in (limited, bad, never, dropped)] == [
        "time limit reached",
        "killed by SIGSEGV",
        "waits for ever: a job that it depends on failed",
        "cancelled by Slurm: a job that it depends on failed",
    ]


def test_waiting_jobs_know_their_place(cluster: PrivateSlurm, submit: Callable[..., Submitted]) -> None:
    hog = submit(cluster, "hog", "sleep 60", "--nodes=4", "--exclusive").job_id
    assert hog is not None
    watch(cluster, hog, "running")
    jobs = [submit(cluster, name, "true", "--nodes=4", "--exclusive").job_id for name in ("a", "b")]
    held = submit(cluster, "held", "true", "--hold").job_id
    after = submit(cluster, "after", "true", f"--dependency=afterok:{hog}").job_id
    asked = [job for job in (*jobs, held, after) if job is not None]
    assert len(asked) == 4

    def places() -> list[tuple[int, int] | None]:
        result = ours(cluster).query([], asked)
        found = [result.statuses[job].place for job in asked if job in result.statuses]
        return [place and (place.number, place.of) for place in found]

    wait_until(lambda: places() == [(1, 2), (2, 2), None, None], "two jobs to wait their turn", SHORT_S)
    assert see(cluster, hog).place is None  # type: ignore[union-attr]


def test_more_nodes_than_there_are_never_run(cluster: PrivateSlurm, submit: Callable[..., Submitted]) -> None:
    answer = submit(cluster, "nodes", "true", "-N9")
    if answer.job_id is None:
        assert "not available" in (answer.error or ""), "24.11 refuses it"
    else:
        wait_until(lambda: cause(see(cluster, answer.job_id) or pytest.fail("gone")) is not None, "why", 20)
        assert (cause(see(cluster, answer.job_id) or pytest.fail("gone")) or "").startswith("can't run: ")


# --- jobs that the controller forgot ---


def test_without_accounting_a_forgotten_job_is_absent(
    tmp_path_factory: pytest.TempPathFactory, submit: Callable[..., Submitted]
) -> None:
    with PrivateSlurm(tmp_path_factory.mktemp("forgetful"), nodes=1, min_job_age_s=2) as slurm:
        job = submit(slurm, "forgotten", "exit 5").job_id
        assert job
        watch(slurm, job, "failed")
        wait_for_absence(slurm, job)
        assert ours(slurm).query(["forgotten"], [job]) == QueryResult(answer="ok")
        assert ours(slurm).find_by_name("forgotten") == QueryResult(answer="ok")


def test_with_accounting_a_forgotten_job_is_found(
    accounted: PrivateSlurm, submit: Callable[..., Submitted]
) -> None:
    jobs = [submit(accounted, "forgotten", commands).job_id for commands in ("exit 5", "sleep 60", "true")]
    watch(accounted, jobs[1], "running")
    ours(accounted).cancel([jobs[1]])
    for job in jobs:
        wait_for_absence(accounted, job)
    result = ours(accounted).query(["forgotten"], jobs)
    assert (result.answer, result.error) == ("ok", None)
    me = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    assert [cause(result.statuses[job]) for job in jobs] == ["exit code 5", f"cancelled by {me}", None]
    assert result.statuses[jobs[2]].state == "completed"
    assert set(ours(accounted).find_by_name("forgotten").statuses) == set(jobs)
    assert ours(accounted).query(["another name"], jobs) == QueryResult(answer="ok")


# --- the fixture itself ---


@pytest.fixture
def killed_tests(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a cluster with a job on a lost node, says so, and waits to be killed."""
    code = (
        "import sys, time; from pathlib import Path; from slurm.cluster import PrivateSlurm\n"
        f"with PrivateSlurm(Path({str(tmp_path / 'c')!r}), nodes=1) as s:\n"
        "    s.wait_for_state(s.submit('sleep 1000'), 'RUNNING'); s.kill_node('n0'); s.freeze()\n"
        "    print('ready', flush=True); time.sleep(1000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen(
        (sys.executable, "-c", code), env=environment, stdout=subprocess.PIPE, text=True
    ) as made:
        yield made
        made.kill()


def test_nothing_of_a_cluster_outlives_tests_that_were_killed(
    killed_tests: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert killed_tests.stdout
    assert killed_tests.stdout.readline().strip() == "ready"
    conf = str(tmp_path / "c" / "etc" / "slurm.conf")
    assert len(left_over(conf)) > 3
    killed_tests.send_signal(signal.SIGKILL)
    wait_until(lambda: not left_over(conf), "everything to end", 60, 0.2)


def test_daemons_listen_on_the_loopback_interface_only(cluster: PrivateSlurm) -> None:
    pids = left_over(str(cluster.conf))
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(entry))
            except OSError:
                continue
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                listening.add(words[1].partition(":")[0])
    assert listening == {"0100007F"}
