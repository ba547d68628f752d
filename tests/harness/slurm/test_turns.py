"""Two shells that submit at once, on one host or on two: nothing is started twice, and no job is unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fake_slurm
import pytest
from typer.testing import CliRunner, Result

from mtpbench.cli import app
from mtpbench.errors import RunError, StoreError
from mtpbench.slurm.client import SUBMIT_TIMEOUT_S
from mtpbench.slurm.journal import ANSWER_LIMIT_S, Journal, Submission
from mtpbench.slurm.submission import job_name
from mtpbench.store import exclusive
from mtpbench.store.files import claim_file
from mtpbench.store.turns import SILENT_S, Turn


def ignore(_: str) -> None: ...


# ------------------------------------------------------------------------------------------------- turns


def test_of_many_that_wait_one_at_a_time_has_the_turn(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def take() -> None:
        with Turn(tmp_path / "turns", "submits", ignore) as turn:
            inside.append(turn.number)
            most.append(len(inside))
            turn.check()
            time.sleep(0.005)
            inside.remove(turn.number)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert sorted(path.name for path in (tmp_path / "turns").iterdir()) == ["00008.done", "00008.json"]


def hold(folder: Path, **changes: str | int) -> Path:
    """A turn that somebody took and never ended."""
    with Turn(folder, "submits", ignore) as turn:
        holder = json.loads((folder / "00001.json").read_text())
    assert turn.number == 1
    path = folder / "00004.json"
    assert claim_file(path, json.dumps({**holder, **changes}))
    return path


def test_the_turn_of_a_dead_process_is_over_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(tmp_path, pid=dead.pid, began="1")
    with Turn(tmp_path, "submits", ignore, patience_s=0.0) as turn:
        assert turn.number == 5


def test_a_process_id_that_came_round_again_is_another_process(tmp_path: Path) -> None:
    hold(tmp_path, began="1")
    with Turn(tmp_path, "submits", ignore, patience_s=0.0) as turn:
        assert turn.number == 5


def test_a_living_process_keeps_its_turn_however_old_its_file(tmp_path: Path) -> None:
    path = hold(tmp_path)
    os.utime(path, (0, 0))
    said: list[str] = []
    with (
        pytest.raises(RunError, match="wait for it or stop it"),
        Turn(tmp_path, "submits", said.append, patience_s=0.0),
    ):
        pass
    assert f"process {os.getpid()} on " in said[0]


@pytest.mark.parametrize("content", [None, "", "{", '{"host": 1}'])
@pytest.mark.parametrize(("age_s", "free"), [(0.0, False), (SILENT_S + 60, True)])
def test_another_machine_keeps_its_turn_while_it_gives_signs_of_life(
    tmp_path: Path, content: str | None, age_s: float, free: bool
) -> None:
    """So does one whose file can't be read."""
    path = hold(tmp_path, machine="another", host="n7")
    if content is not None:
        path.write_text(content)
    os.utime(path, (time.time() - age_s,) * 2)
    try:
        with Turn(tmp_path, "submits", ignore, patience_s=0.0):
            taken = True
    except RunError:
        taken = False
    assert taken is free


@pytest.mark.parametrize(("age_s", "free"), [(0.0, False), (SILENT_S + 60, True)])
def test_a_living_process_that_may_not_be_looked_at_is_told_by_its_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, free: bool
) -> None:
    """Where /proc hides other users' processes (hidepid), theirs are no dead ones."""
    path, read_text = hold(tmp_path, pid=os.getppid()), Path.read_text
    os.utime(path, (time.time() - age_s,) * 2)

    def hidden(self: Path, *rest: str) -> str:
        if self == Path(f"/proc/{os.getppid()}/stat"):
            raise PermissionError(1, "Operation not permitted")
        return read_text(self, *rest)

    monkeypatch.setattr(Path, "read_text", hidden)
    try:
        with Turn(tmp_path, "submits", ignore, patience_s=0.0):
            taken = True
    except RunError:
        taken = False
    assert taken is free


def test_a_turn_ends_well_where_an_older_ones_files_can_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        for _ in range(2):
            with Turn(tmp_path, "submits", ignore, patience_s=0.0):
                pass
    with Turn(tmp_path, "submits", ignore, patience_s=0.0) as turn:
        assert turn.number == 3


def test_a_process_that_was_frozen_and_lost_its_turn_goes_no_further(tmp_path: Path) -> None:
    with Turn(tmp_path, "submits", ignore) as turn:
        turn.check()
        claim_file(tmp_path / "00002.json", "")
        with pytest.raises(RunError, match="another one submits now"):
            turn.check()


def test_an_intent_counts_as_live_for_longer_than_sbatch_may_take() -> None:
    assert ANSWER_LIMIT_S > SUBMIT_TIMEOUT_S


# ------------------------------------------------------------------------------------------- submissions


class Shell:
    """A sweep of two deployments of equal size, a fake Slurm, and the commands of a user."""

    def __init__(self, fake: Path, sweep: Path, folder: Path) -> None:
        self.fake, self.sweep, self.folder = fake, sweep, folder
        (folder / "mine.yaml").write_text("time_limit: 600\nenvironment: {PASSWORD_OF_MINE: SECRET-value}\n")
        self.journal = Journal(folder / "results" / "tiny")

    @property
    def words(self) -> list[str]:
        cluster, results = self.folder / "mine.yaml", self.folder / "results"
        return ["submit", str(self.sweep), "--cluster", str(cluster), "--results", str(results)]

    def popen(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mtpbench", *self.words, "--no-analysis", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, *more: str) -> Result:
        return CliRunner().invoke(app, [*self.words, "--no-analysis", *more])

    def cancel(self) -> Result:
        return CliRunner().invoke(app, ["cancel", str(self.sweep), "--results", str(self.folder / "results")])

    def lay_down(self, age_s: float = 0.0, **changes: str | int | None) -> Submission:
        """A submission as it is journalled, made so many seconds ago."""
        began = datetime.now(UTC) - timedelta(seconds=age_s)
        number, keys = int(changes.pop("number", 1) or 1), self.keys
        name = job_name("tiny", number, str((self.folder / "results").resolve()))
        submission = Submission(number=number, name=name, keys=keys, time_utc=began.isoformat(), **changes)  # type: ignore[arg-type]
        assert self.journal.claim(submission)
        return submission

    @property
    def keys(self) -> tuple[str, ...]:
        from mtpbench.sweep import load_sweep

        return tuple(dict.fromkeys(point.deployment_key for point in load_sweep(self.sweep).points))


@pytest.fixture
def shell(fake: Path, write_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr("mtpbench.slurm.client.SETTLE_S", 0.0)
    return Shell(fake, write_sweep(), tmp_path)


@pytest.mark.parametrize("gap_s", [0.0, 0.8])
def test_two_shells_that_submit_at_once_start_everything_once(shell: Shell, gap_s: float) -> None:
    (shell.fake / "delay_s").write_text("1.5")
    shells = [shell.popen()]
    time.sleep(gap_s)
    shells.append(shell.popen())
    said = [process.communicate(timeout=60)[0] for process in shells]
    assert [process.returncode for process in shells] == [0, 0], said
    jobs = fake_slurm.submitted(shell.fake)
    assert [tasks for _, _, tasks in jobs] == [2]
    assert [submission.job_id for submission in shell.journal.submissions()] == [str(jobs[0][0])]
    assert "has it already" in "".join(said)


def test_what_the_profile_sets_is_for_its_owners_eyes(shell: Shell) -> None:
    assert shell.submit().exit_code == 0
    holding = [
        path for path in shell.journal.root.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()
    ]
    assert [path.name for path in holding] == ["00001.sh"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


def test_a_number_that_is_taken_is_never_taken_twice(shell: Shell) -> None:
    """Another host's file that this one did not see when it counted."""
    shell.lay_down(error="refused", number=3)
    first = shell.journal.submissions()
    monkey = iter([3, 4])
    shell.journal.next_number = lambda: next(monkey)  # type: ignore[method-assign]
    assert not shell.journal.claim(replace(first[0], name="another"))
    assert shell.journal.submissions() == first


def test_a_collision_gives_the_next_number_and_its_own_name(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.lay_down(error="refused", number=1)
    numbers = iter([1, 1, 1, 2, 3])
    monkeypatch.setattr(Journal, "next_number", lambda self: next(numbers))
    assert shell.submit().exit_code == 0
    (job,) = fake_slurm.submitted(shell.fake)
    last = shell.journal.submissions()[-1]
    assert (last.number, last.name, last.job_id) == (2, job[1], str(job[0]))


def test_an_intent_of_a_killed_submit_counts_as_submitted_while_its_sbatch_may_live(shell: Shell) -> None:
    shell.lay_down(age_s=20.0)
    result = shell.submit()
    assert result.exit_code == 0
    assert "has no answer of sbatch yet" in " ".join(result.output.split())
    assert fake_slurm.submitted(shell.fake) == []
    assert "may still come" in shell.cancel().output


def test_an_intent_that_its_sbatch_has_outlived_is_submitted_again(shell: Shell) -> None:
    shell.lay_down(age_s=ANSWER_LIMIT_S + 1)
    assert shell.submit().exit_code == 0
    assert len(fake_slurm.submitted(shell.fake)) == 1


def test_an_intent_whose_job_is_there_is_adopted(shell: Shell) -> None:
    intent = shell.lay_down(age_s=20.0)
    number = fake_slurm.take_in(shell.fake, intent.name, tasks=2)
    result = shell.submit()
    assert f"job {number}_0 has it already" in result.output
    assert shell.journal.submissions()[0].job_id == str(number)


def test_a_second_job_of_a_submission_counts_and_is_cancelled(shell: Shell) -> None:
    """An sbatch that seemed to fail, was repeated by a wrapper, and went through twice."""
    intent = shell.lay_down(job_id="77")
    number = fake_slurm.take_in(shell.fake, intent.name, tasks=2)
    result = shell.submit()
    assert f"job {number}_0 has it already" in result.output
    assert len(fake_slurm.submitted(shell.fake)) == 1
    assert f"{number}_0, {number}_1" in shell.cancel().output
    assert fake_slurm.submitted(shell.fake) == []


def test_a_job_of_ours_that_no_file_knows_is_said_and_can_be_cancelled(shell: Shell) -> None:
    (shell.folder / "results/tiny").mkdir(parents=True)
    ours = fake_slurm.take_in(shell.fake, job_name("tiny", 5, str((shell.folder / "results").resolve())))
    theirs = fake_slurm.take_in(shell.fake, job_name("tiny", 5, "/elsewhere"))
    result = shell.submit()
    assert isinstance(result.exception, RunError)
    assert f"in no file of its journal, so what they measure is unknown: {ours} (" in str(result.exception)
    assert str(theirs) not in str(result.exception)
    assert f"cancelled: {ours}" in shell.cancel().output
    assert [number for number, _, _ in fake_slurm.submitted(shell.fake)] == [theirs]
    assert shell.submit().exit_code == 0


def test_nothing_is_submitted_beside_a_run_on_this_machine(shell: Shell) -> None:
    with exclusive(shell.folder / "results/tiny"):
        result = shell.submit()
    assert isinstance(result.exception, StoreError)
    assert "another run is writing here" in str(result.exception)
    assert fake_slurm.submitted(shell.fake) == []
    assert shell.submit().exit_code == 0


def test_a_submit_that_is_interrupted_says_so_in_the_journal(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mtpbench.slurm.client.Slurm.submit", interrupted)
        shell.submit()
    assert [one.error for one in shell.journal.submissions()] == ["interrupted"]
    assert shell.submit().exit_code == 0
    assert len(fake_slurm.submitted(shell.fake)) == 1


def test_an_unanswered_intent_is_shown_as_one(shell: Shell) -> None:
    shell.lay_down(age_s=5.0)
    from mtpbench.slurm.states import judge_job

    (intent,) = shell.journal.submissions()
    now = datetime.now(UTC)
    outcome = judge_job(intent.keys[0], intent, None, {}, now)
    assert (outcome.state, outcome.text) == ("unknown", "sbatch was called and has not answered yet")
    assert judge_job(intent.keys[0], intent, None, {}, now + timedelta(hours=1)).state == "lost"
    torn = replace(intent, time_utc="t")
    assert judge_job(intent.keys[0], torn, None, {}, now).state == "lost"
    assert json.loads((shell.journal.root / "journal/00001.json").read_text())["job_id"] is None
