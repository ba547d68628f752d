"""What Slurm 22.05 and 24.11 printed, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.slurm.listings import Unreadable, parse_places, parse_sacct, parse_scontrol_jobs, parse_squeue
from mtpbench.slurm.states import JobStatus, Place, State, cause

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "slurm"
VERSIONS = ("22.05.8", "24.11.5")
ODD = 'a|b $(x) "q" \'é\n7|RUNNING|.line'


def recorded(version: str, name: str) -> str:
    return (FIXTURES / version / name).read_text("utf-8")


def by_name(statuses: tuple[JobStatus, ...]) -> dict[str, JobStatus]:
    return {status.name: status for status in statuses}


@pytest.fixture(params=VERSIONS)
def ended(request: pytest.FixtureRequest) -> dict[str, JobStatus]:
    return by_name(parse_squeue(recorded(request.param, "squeue-ended.txt")))


@pytest.mark.parametrize(
    ("name", "state", "why"),
    [
        ("failed", "failed", "exit code 7"),
        ("segv", "failed", "killed by SIGSEGV"),
        ("shell137", "failed", "exit code 137 (a process of it was killed by SIGKILL)"),
        ("limit", "timeout", "time limit reached"),
        ("never", "pending", "waits for ever: a job that it depends on failed"),
        ("dropped", "cancelled", "cancelled by Slurm: a job that it depends on failed"),
        ("held", "pending", "held; `scontrol release` lets it go"),
        ("cancelled", "cancelled", "cancelled"),
        ("lost", "node_fail", "one of its nodes n[1-2] failed"),
        ("requeued", "running", None),
        ("again", "pending", None),
        ("waiting", "pending", None),
        (ODD, "completed", None),
    ],
)
def test_both_versions_of_squeue_tell_how_a_job_ended(
    ended: dict[str, JobStatus], name: str, state: State, why: str | None
) -> None:
    assert (ended[name].state, cause(ended[name])) == (state, why)


def test_impossible_requests_have_a_cause_in_both_versions() -> None:
    old, new = (by_name(parse_squeue(recorded(v, "squeue-ended.txt")))["toomany"] for v in VERSIONS)
    assert cause(old) == "can't run: it asks for more or fewer nodes than its partition allows"
    assert cause(new) == "no nodes are as it asks"


def test_squeue_tells_restarts_and_time_left(ended: dict[str, JobStatus]) -> None:
    again, running = ended["again"], ended["requeued"]
    assert (again.restarts, running.restarts, ended["failed"].restarts) == (1, 1, 0)
    assert running.nodes == "n0"
    assert running.time_left_s is not None
    assert 540 < running.time_left_s < 600
    assert ended["never"].dependency_never
    assert not ended["again"].dependency_never
    assert ended["held"].time_left_s is None, "an unlimited job has no time left to tell"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_waiting_job_has_an_estimated_start_and_a_running_one_has_not(version: str) -> None:
    statuses = by_name(parse_squeue(recorded(version, "squeue-running.txt")))
    assert (statuses["waiting"].start_estimate or "").startswith("2027-")
    assert statuses["limit"].start_estimate is None
    assert statuses["limit"].state == "running"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_requeued_job_is_still_alive(version: str) -> None:
    status = by_name(parse_squeue(recorded(version, "squeue-requeued.txt")))["requeued"]
    assert (status.state, status.restarts) == ("completing", 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_array_tasks_are_jobs_of_their_own(version: str) -> None:
    for statuses in (
        parse_squeue(recorded(version, "squeue-ended.txt")),
        parse_scontrol_jobs(recorded(version, "scontrol.txt")),
    ):
        tasks = {s.job_id.partition("_")[2]: s.state for s in statuses if s.name == "throttled"}
        assert tasks == {"0": "running", "1": "running", "2": "pending", "3": "pending"}
        assert {s.base_id for s in statuses if s.name == ODD} == {"2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_scontrol_tells_the_same_as_squeue(version: str) -> None:
    queue = {s.job_id: s for s in parse_squeue(recorded(version, "squeue-ended.txt"))}
    shown = {s.job_id: s for s in parse_scontrol_jobs(recorded(version, "scontrol.txt"))}
    assert queue.keys() == shown.keys()
    for job_id, status in shown.items():
        same = ("name", "state", "exit_code", "signal", "restarts", "nodes", "dependency_never")
        assert {k: getattr(status, k) for k in same} == {k: getattr(queue[job_id], k) for k in same}


def test_scontrol_names_the_failed_node_from_24_11_on() -> None:
    assert (
        cause(by_name(parse_scontrol_jobs(recorded("24.11.5", "scontrol.txt")))["lost"]) == "node n2 failed"
    )


def test_the_history_tells_who_cancelled_and_counts_restarts() -> None:
    statuses = by_name(parse_sacct(recorded("22.05.8", "sacct.txt")))
    assert cause(statuses["cancelled"]) == "cancelled by root"
    assert cause(statuses["failed"]) == "exit code 7"
    assert cause(statuses["lost"]) == "one of its nodes n[1-2] failed"
    assert statuses["lost"].restarts == 0
    assert statuses["requeued"].restarts == 1
    assert statuses[ODD.replace('"', "`")].state == "completed"


def test_the_history_never_says_that_a_job_lives() -> None:
    statuses = by_name(parse_sacct(recorded("22.05.8", "sacct.txt")))
    assert (statuses["requeued"].state, statuses["again"].state) == ("unknown", "unknown")
    assert cause(statuses["requeued"]) == "Slurm calls it RUNNING"


@pytest.mark.parametrize("parse", [parse_squeue, parse_scontrol_jobs, parse_sacct])
def test_no_output_is_no_jobs_and_garbage_is_refused(parse) -> None:  # type: ignore[no-untyped-def]
    assert parse("") == ()
    assert parse("\n") == ()
    for garbage in ("Welcome to the cluster!\n", "12\n", "12|RUNNING\n", "\x00\xff|||||\n", "JobId=\n"):
        with pytest.raises(Unreadable):
            parse(garbage)


@pytest.mark.parametrize("version", VERSIONS)
def test_squeue_cut_off_anywhere_is_refused_or_lacks_only_whole_records(version: str) -> None:
    text = recorded(version, "squeue-ended.txt").rstrip("\n")
    whole = parse_squeue(text)
    for end in range(1, len(text)):
        cut = text[:end]
        try:
            statuses = parse_squeue(cut)
        except Unreadable:
            continue
        assert cut.endswith(("|.", "|.\n")), cut[-40:]
        assert statuses == whole[: len(statuses)] or cut.endswith("|.")


def test_a_banner_before_the_records_is_refused() -> None:
    with pytest.raises(Unreadable, match="Welcome"):
        parse_squeue("Welcome!\n" + recorded("22.05.8", "squeue-ended.txt"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("364-23:59:59", 31535999),
        ("1:02:03", 3723),
        ("9:59", 599),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
    ],
)
def test_times_left_in_seconds(text: str, seconds: float | None) -> None:
    (status,) = parse_squeue(f"5|RUNNING|None|0|0|n0|2026-11-24T07:54:53|{text}|x|.\n")
    assert status.time_left_s == seconds


def test_the_tasks_of_an_array_are_unfolded_and_a_list_cut_short_is_refused() -> None:
    record = "JobId=9 ArrayJobId=9 ArrayTaskId={} JobName=x UserId=u(1) JobState=PENDING ExitCode=0:0 \n"
    ids = [status.job_id for status in parse_scontrol_jobs(record.format("0-4:2,7%2"))]
    assert ids == ["9_0", "9_2", "9_4", "9_7"]
    with pytest.raises(Unreadable, match="cuts long lists"):
        parse_scontrol_jobs(record.format("0,2,4,..."))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": "out_of_memory", "raw": "OUT_OF_MEMORY", "signal": 125}, "out of memory"),
        ({"state": "node_fail", "raw": "NODE_FAIL", "nodes": "n3"}, "node n3 failed"),
        ({"state": "node_fail", "raw": "BOOT_FAIL", "nodes": "n3"}, "node n3 did not boot"),
        ({"state": "node_fail", "raw": "NODE_FAIL"}, "a node failed"),
        ({"state": "timeout", "raw": "DEADLINE"}, "deadline passed"),
        ({"state": "preempted", "raw": "PREEMPTED"}, "preempted by a job of higher priority"),
        ({"state": "requeued", "raw": "REQUEUE_HOLD", "reason": "X"}, "requeued (X)"),
        ({"state": "cancelled", "raw": "CANCELLED", "cancelled_by": 1000}, "cancelled by user 1000"),
        ({"state": "failed", "raw": "FAILED", "reason": "JobLaunchFailure"}, "it could not be launched"),
        ({"state": "failed", "raw": "FAILED", "reason": "Prolog"}, "the cluster's prolog failed"),
        ({"state": "failed", "raw": "FAILED", "reason": "Other"}, "failed (Other)"),
        ({"state": "failed", "raw": "FAILED", "signal": 99}, "killed by signal 99"),
        ({"state": "failed", "raw": "FAILED", "exit_code": 200}, "exit code 200"),
        (
            {"state": "pending", "raw": "PENDING", "reason": "BadConstraints"},
            "can't run: no nodes are as it asks",
        ),
        ({"state": "pending", "raw": "PENDING", "reason": "Resources"}, None),
        ({"state": "completed", "raw": "COMPLETED", "exit_code": 0}, None),
        ({"state": "unknown", "raw": "EXPEDITING"}, "Slurm calls it EXPEDITING"),
    ],
)
def test_causes_that_could_not_be_recorded(status: dict[str, object], words: str | None) -> None:
    assert cause(JobStatus(job_id="1", name="x", **status)) == words  # type: ignore[arg-type]


def test_places_in_the_queue_are_those_of_jobs_that_wait_their_turn() -> None:
    text = (
        "7|100|batch|Priority|.\n"
        "8_2|400|batch|Resources|.\n"
        "9|400|batch|Priority|.\n"
        "10|900|batch|Dependency|.\n"
        "11|0|batch|JobHeldUser|.\n"
        "12|5|debug|None|.\n"
        "not a job\n"
    )
    assert parse_places(text) == {
        "8_2": Place(number=1, of=3, partition="batch"),
        "9": Place(number=2, of=3, partition="batch"),
        "7": Place(number=3, of=3, partition="batch"),
        "12": Place(number=1, of=1, partition="debug"),
    }
    assert parse_places("") == {}


def scontrol_job(**changes: str) -> str:
    fields = {
        "JobId": "12",
        "ArrayJobId": "12",
        "ArrayTaskId": "0-3",
        "JobName": "a",
        "UserId": "root(0)",
        "JobState": "PENDING",
        "Restarts": "0",
        "ExitCode": "0:0",
    }
    return " ".join(f"{name}={value}" for name, value in {**fields, **changes}.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"Restarts": "two"},
        {"Restarts": "9" * 5000},
        {"ExitCode": "²:0"},
        {"ExitCode": "0"},
        {"ArrayJobId": ""},
        {"ArrayTaskId": "0-9:0"},
        {"ArrayTaskId": "5-1"},
        {"ArrayTaskId": "0-99999999999"},
        {"ArrayTaskId": ",".join(["0-60000"] * 3)},
        {"JobId": "1x"},
    ],
)
def test_what_no_slurm_prints_of_a_job_is_unreadable(changes: dict[str, str]) -> None:
    assert len(parse_scontrol_jobs(scontrol_job())) == 4
    with pytest.raises(Unreadable):
        parse_scontrol_jobs(scontrol_job(**changes))
