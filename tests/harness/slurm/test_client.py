"""Slurm's programs played by small shell scripts: success, outage, hang, garbage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtpbench.errors import RunError
from mtpbench.slurm import clean
from mtpbench.slurm.client import QueryResult, Slurm
from mtpbench.slurm.states import Place

OUTAGES = (
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "slurm_load_jobs error: Socket timed out on send/recv operation",
    "slurm_load_jobs error: Connection refused",
    "squeue: error: something new",
)
UNKNOWN = "slurm_load_jobs error: Invalid job id specified"
ROW = "{}|{}|None|0|0|n0|2026-11-24T07:52:06|9:00|{}|."
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"

Play = Callable[..., Slurm]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Slurm whose programs are the given shell commands; each writes its words to the file NAME.calls."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(timeout_s: float = 20.0, settle_s: float = 0.0, **scripts: str) -> Slurm:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.calls\n{script}\n')
            path.chmod(0o755)
        environment = {"PATH": f"{folder}:/usr/bin:/bin"}
        programs = {
            name: str(folder / name) for name in ("sbatch", "squeue", "scontrol", "sacct", "scancel", "sinfo")
        }
        return Slurm(
            environment, programs, timeout_s=timeout_s, submit_timeout_s=timeout_s, settle_s=settle_s
        )

    return make


def rows(*jobs: tuple[str, str, str]) -> str:
    return "cat <<'END'\n" + "\n".join(ROW.format(*job) for job in jobs) + "\nEND"


def fails(text: str) -> str:
    return f"echo '{text}' >&2; exit 1"


def calls(tmp_path: Path, name: str) -> int:
    path = tmp_path / f"{name}.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


# --- submit ---


@pytest.mark.parametrize("answer", ["12", "12;cluster", "sbatch: a plugin says hello\\n12"])
def test_submit_gives_the_job_id(play: Play, answer: str) -> None:
    assert play(sbatch=f"printf '{answer}\\n'").submit(Path("x")).job_id == "12"


def test_submit_gives_the_error_and_no_id_when_sbatch_fails(play: Play) -> None:
    text = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    answer = play(sbatch=fails(text)).submit(Path("x"))
    assert (answer.job_id, answer.error) == (None, text)


@pytest.mark.parametrize("answer", ["", "ok", "Submitted", "12 13"])
def test_submit_does_not_take_garbage_for_an_id(play: Play, answer: str) -> None:
    found = play(sbatch=f"echo '{answer}'").submit(Path("x"))
    assert found.job_id is None
    assert "instead of a job id" in (found.error or "")


def test_a_hanging_sbatch_is_killed_with_all_that_it_started(play: Play, tmp_path: Path) -> None:
    began = time.monotonic()
    answer = play(timeout_s=0.3, sbatch=f"(sleep 2; touch {tmp_path}/late) & sleep 60").submit(Path("x"))
    assert "did not answer within 0.3 s" in (answer.error or "")
    assert time.monotonic() - began < 20
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


def test_words_and_the_script_reach_sbatch_as_they_are(play: Play, tmp_path: Path) -> None:
    slurm = play(sbatch=f"for word; do printf '%s\\0' \"$word\"; done > {tmp_path}/words; echo 1")
    slurm.submit(Path("/a b/$(x)'.sh"), ('--comment="q"\n`y`',))
    words = (tmp_path / "words").read_text().split("\0")[:-1]
    assert words == ["--parsable", '--comment="q"\n`y`', "/a b/$(x)'.sh"]


# --- query: three answers ---


def test_look_sees_whole_arrays_tasks_and_jobs_in_one_query(play: Play, tmp_path: Path) -> None:
    listing = rows(
        ("5_0", "RUNNING", "a"), ("5_1", "PENDING", "a"), ("6", "FAILED", "b"), ("7", "RUNNING", "x")
    )
    result = play(squeue=listing).query(["a", "b"], ["5", "6"])
    assert result.answer == "ok"
    assert {job: status.state for job, status in result.statuses.items()} == {
        "5_0": "running",
        "5_1": "pending",
        "6": "failed",
    }
    # The second one asks where the waiting task stands.
    assert (calls(tmp_path, "squeue"), calls(tmp_path, "scontrol")) == (2, 0)
    play(squeue=rows(("5_0", "RUNNING", "a"))).query(["a"], ["5"])
    assert calls(tmp_path, "squeue") == 3


def test_waiting_jobs_have_a_place_where_slurm_tells_it(play: Play) -> None:
    listing = rows(("5", "PENDING", "a"))
    places = "printf '9|7|batch|Priority|.\\n5|3|batch|Priority|.\\n'"
    told = play(squeue=f'case "$*" in *PriorityLong*) {places}; exit;; esac\n{listing}')
    assert told.query(["a"], ["5"]).statuses["5"].place == Place(number=2, of=2, partition="batch")
    silent = play(squeue=f'case "$*" in *PriorityLong*) exit 1;; esac\n{listing}')
    result = silent.query(["a"], ["5"])
    assert (result.answer, result.statuses["5"].place) == ("ok", None)


@pytest.mark.parametrize("text", OUTAGES)
def test_an_outage_is_a_failed_query_and_never_an_absent_job(play: Play, text: str) -> None:
    slurm = play(squeue=fails(text), scontrol=fails(UNKNOWN), sacct=DISABLED)
    for result in (slurm.query(["a"], ["5"]), slurm.find_by_name("a")):
        assert result == QueryResult(answer="failed", error=text)


@pytest.mark.parametrize("text", OUTAGES)
def test_an_outage_between_two_queries_is_a_failed_query(play: Play, text: str) -> None:
    result = play(squeue="true", scontrol=fails(text)).query(["a"], ["5"])
    assert (result.answer, result.error) == ("failed", text)


def test_a_job_that_the_controller_does_not_know_is_absent(play: Play) -> None:
    result = play(squeue="true", scontrol=fails(UNKNOWN), sacct=DISABLED).query(["a"], ["5"])
    assert result == QueryResult(answer="ok")


def test_a_hanging_squeue_is_a_failed_query(play: Play) -> None:
    result = play(timeout_s=0.3, squeue="sleep 60").query(["a"], ["5"])
    assert (result.answer, result.error) == ("failed", "squeue did not answer within 0.3 s")


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Welcome to the cluster!'",
        "printf '5|RUNN'",
        "printf '5|RUNNING|None|0|0|n0|2026-11-24T07:52:06|9:00|a'",
        "printf '\\377\\376\\000garbage\\n'",
        "kill -9 $$",
    ],
)
def test_output_that_cannot_be_read_is_a_failed_query(play: Play, script: str) -> None:
    result = play(squeue=script, scontrol=fails(UNKNOWN), sacct=DISABLED).query(["a"], ["5"])
    assert result.answer == "failed"
    assert result.error


def test_a_missing_program_is_a_failed_query(play: Play) -> None:
    assert play().query(["a"], ["5"]) == QueryResult(answer="failed", error="no squeue on this machine")


def test_a_program_that_cannot_be_started_is_a_failed_query(play: Play, tmp_path: Path) -> None:
    slurm = play(squeue="true")
    (tmp_path / "bin" / "squeue").write_bytes(b"\x7fELF nonsense")
    result = slurm.query(["a"], ["5"])
    assert result.answer == "failed"
    assert "could not be started" in (result.error or "")


def test_names_that_are_no_utf8_are_read_and_belong_to_others(play: Play) -> None:
    row = "printf '5|RUNNING|None|0|0|n0|N/A|9:00|\\377\\376|.\\n6|RUNNING|None|0|0|n0|N/A|9:00|a|.\\n'"
    result = play(squeue=row).query(["a"], ["6"])
    assert list(result.statuses) == ["6"]


def test_an_id_that_came_round_again_for_another_job_is_absent(play: Play) -> None:
    listing = rows(("5", "RUNNING", "other"))
    slurm = play(squeue=listing, scontrol=fails(UNKNOWN), sacct="echo '5|COMPLETED|0:0|None|n0|a|c'")
    assert slurm.query(["a"], ["5"]).statuses["5"].state == "completed"


def test_a_job_of_another_user_is_seen(play: Play) -> None:
    shown = "echo 'JobId=5 JobName=a UserId=u(1) JobState=RUNNING Reason=None Restarts=2 ExitCode=0:0 '"
    result = play(squeue="true", scontrol=shown).query(["a"], ["5"])
    assert (result.statuses["5"].state, result.statuses["5"].restarts) == ("running", 2)


def test_the_history_is_asked_once_for_all_that_the_controller_forgot(play: Play, tmp_path: Path) -> None:
    slurm = play(
        squeue=rows(("5_1", "RUNNING", "a")),
        scontrol=fails(UNKNOWN),
        sacct="echo '5_0|TIMEOUT|0:0|None|n0|a|c\n6|CANCELLED by 7|0:0|None|n0|b|c'",
    )
    result = slurm.query(["a", "b"], ["5_0", "5_1", "6"])
    assert {job: status.state for job, status in result.statuses.items()} == {
        "5_0": "timeout",
        "5_1": "running",
        "6": "cancelled",
    }
    assert calls(tmp_path, "sacct") == 1


@pytest.mark.parametrize("script", [fails("sacct: error: Unable to connect to slurmdbd"), "echo nonsense"])
def test_a_history_that_fails_leaves_a_job_absent_and_says_so(play: Play, script: str) -> None:
    result = play(squeue="true", scontrol=fails(UNKNOWN), sacct=script).query(["a"], ["5"])
    assert (result.answer, dict(result.statuses)) == ("ok", {})
    assert result.error


def test_without_sacct_a_job_that_was_forgotten_is_absent(play: Play) -> None:
    assert play(squeue="true", scontrol=fails(UNKNOWN)).query(["a"], ["5"]) == QueryResult(answer="ok")


def test_nothing_asked_is_nothing_run(play: Play, tmp_path: Path) -> None:
    """But a query of no job still says which jobs the user has."""
    slurm = play(squeue="true", scancel="true")
    assert slurm.query([], []) == QueryResult(answer="ok")
    assert slurm.cancel([]) is None
    assert (calls(tmp_path, "squeue"), calls(tmp_path, "scancel")) == (1, 0)


# --- after an answer that was lost ---


def test_a_job_is_found_by_its_exact_name(play: Play) -> None:
    slurm = play(squeue=rows(("5", "RUNNING", "a"), ("6", "RUNNING", "ab"), ("7", "FAILED", "a")))
    assert set(slurm.find_by_name("a").statuses) == {"5", "7"}


def test_a_name_is_looked_for_again_before_it_is_called_absent(play: Play, tmp_path: Path) -> None:
    late = f"[ $(wc -l < {tmp_path}/squeue.calls) -lt 2 ] || {rows(('5', 'PENDING', 'a'))}"
    assert set(play(settle_s=0.05, squeue=late).find_by_name("a").statuses) == {"5"}
    assert calls(tmp_path, "squeue") == 2


def test_the_history_finds_a_name_that_the_controller_forgot(play: Play) -> None:
    slurm = play(squeue="true", sacct="echo '5|COMPLETED|0:0|None|n0|a|c'")
    assert slurm.find_by_name("a").statuses["5"].state == "completed"


# --- the rest ---


def test_cancel_says_what_went_wrong_but_not_that_a_job_is_gone(play: Play, tmp_path: Path) -> None:
    assert play(scancel="true").cancel(["5"]) is None
    assert (
        play(scancel=fails("scancel: error: Kill job error on job id 5: Invalid job id specified")).cancel(
            ["5"]
        )
        is None
    )
    assert "timed out" in (play(scancel=fails("scancel: error: Socket timed out")).cancel(["5"]) or "")
    play(scancel="true").cancel(["5", "6_1"], signal="TERM")
    assert (tmp_path / "scancel.calls").read_text().endswith("--batch --signal=TERM --state=RUNNING 5 6_1\n")


def test_a_machine_without_slurm_says_what_is_missing(tmp_path: Path) -> None:
    slurm = Slurm({"PATH": str(tmp_path)})
    assert "no sbatch and no squeue" in (slurm.available() or "")
    assert slurm.version() is None
    assert slurm.submit(Path("x")).error == "no sbatch on this machine"
    with pytest.raises(RunError, match="no sinfo on this machine"):
        slurm.partitions()


def test_a_machine_with_slurm_is_fit_even_without_sacct(play: Play) -> None:
    slurm = play(
        sbatch="echo slurm-wlm 22.05.8", squeue="", scontrol="", scancel="", sinfo="printf 'a\\nb\\na\\n'"
    )
    assert slurm.available() is None
    assert slurm.version() == "22.05.8"
    assert slurm.partitions() == ("a", "b")


def test_the_environment_loses_what_an_enclosing_job_left_there() -> None:
    left = {"SLURM_JOB_ID": "5", "SBATCH_PARTITION": "x", "SQUEUE_FORMAT": "%i", "SLURM_NTASKS": "4"}
    kept = {"SLURM_CONF": "/c", "PATH": "/bin", "HOME": "/h", "SLURM_JWT": "t"}
    assert clean({**left, **kept}) == kept
    assert not any(name.startswith("SLURM_JOB") for name in Slurm({**os.environ, **left}).environment)


# --- steps of a job ---


def test_what_a_program_printed_or_why_not(play: Play) -> None:
    slurm = play(
        scontrol="echo NodeName=n0", squeue=fails("no such step"), scancel="exit 3", sinfo="sleep 60"
    )
    assert slurm.ask("scontrol", "show", "node") == "NodeName=n0\n"
    with pytest.raises(RunError, match=r"^squeue ended with 1: no such step$"):
        slurm.ask("squeue", "--steps")
    with pytest.raises(RunError, match=r"^scancel ended with 3 and said nothing$"):
        slurm.ask("scancel", "12.0")
    with pytest.raises(RunError, match=r"sinfo did not answer within 0\.2 s"):
        slurm.ask("sinfo", timeout_s=0.2)
    with pytest.raises(RunError, match="no squash on this machine"):
        slurm.ask("squash")


def test_steps_inherit_the_job_and_nothing_of_its_own_task() -> None:
    outer = {
        "SLURM_JOB_ID": "9",
        "SLURM_NTASKS": "4",
        "SBATCH_GRES": "gpu:8",
        "PMI_RANK": "0",
        "PMIX_ID": "x",
        "SLURM_CONF": "/etc/slurm.conf",
        "HOME": "/root",
    }
    assert Slurm(outer, job_id="12").environment == {
        "SLURM_JOB_ID": "12",
        "SLURM_CONF": "/etc/slurm.conf",
        "HOME": "/root",
        "PYTHONUNBUFFERED": "1",
    }
    assert "SLURM_JOB_ID" not in Slurm(outer).environment
