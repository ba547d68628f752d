"""Slurm's own programs: the only place that runs them (helpers are started through `srun` by `remote`).

A query has three answers, never two: a job is there, is absent (the controller answered and does not know
it), or is unknown because the query failed. sbatch may fail although its job runs; `find_by_name` finds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from mtpbench import reaper
from mtpbench.errors import RunError
from mtpbench.slurm import clean, step_environment
from mtpbench.slurm.listings import (
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    WAITING_FORMAT,
    Unreadable,
    parse_places,
    parse_sacct,
    parse_scontrol_jobs,
    parse_squeue,
)
from mtpbench.slurm.states import JobStatus, absent_of, base_of, chosen_of, named

QUERY_TIMEOUT_S = 20.0
SUBMIT_TIMEOUT_S = 90.0
"""sbatch itself waits and tries again while the controller is busy, so it may take long."""
SETTLE_S = 3.0
"""After a failed sbatch the controller may still be taking the job in when it answers a query."""
PROGRAMS = ("sbatch", "squeue", "scontrol", "sacct", "scancel", "sinfo")
HISTORY = "now-30days"

_UNKNOWN_JOB = re.compile("Invalid job id specified", re.IGNORECASE)
_NO_HISTORY = re.compile("accounting storage is disabled", re.IGNORECASE)
_JOB_ID = re.compile(r"([0-9]{1,18})(?:;.*)?")
MOST_BYTES = 1 << 26
"""No program of Slurm's prints more of what it is asked; one that does is not read to an end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """An answer of sbatch is a job id, or why there is none. An error does not mean that no job runs."""

    job_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryResult:
    """A query result holds what Slurm answers about some jobs.

    Args:
        answer: `failed` where Slurm did not answer: then nothing is known of any job.
        statuses: by job id, `12` or `12_3`; a job of the query without a status is absent.
        error: why the query failed; with `ok`, why the history could not be read for jobs that the controller
            forgot.
        others: the user's other jobs, as far as the controller was asked for all.
    """

    answer: Literal["ok", "failed"]
    statuses: Mapping[str, JobStatus] = field(default_factory=dict)
    error: str | None = None
    others: tuple[JobStatus, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Completed:
    """A program of Slurm's has ended. `code` is None where it was killed or could not be started."""

    program: str
    code: int | None
    out: str = ""
    message: str

    @property
    def failed(self) -> bool:
        return self.code != 0

    @property
    def error(self) -> str:
        return self.message or f"{self.program} ended with {self.code} and said nothing"


class _NoAnswer(Exception):
    """Slurm did not answer, or its answer can't be read."""


class Slurm:
    """The Slurm client runs Slurm's programs, without the settings of an enclosing job.

    Args:
        environment: what the programs inherit; SLURM_CONF stays, other settings of Slurm's do not.
        job_id: the raw id of the job whose steps are started and queried; None for no job.
        programs: paths by name, for programs that are not on PATH.
        timeout_s: the longest that a query may take.
        submit_timeout_s: the longest that sbatch may take.
        settle_s: seconds to wait after a first "no such name" before the second query.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        programs: Mapping[str, str] | None = None,
        *,
        job_id: str | None = None,
        timeout_s: float = QUERY_TIMEOUT_S,
        submit_timeout_s: float = SUBMIT_TIMEOUT_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.environment = clean(os.environ if environment is None else environment)
        if job_id is not None:
            self.environment = step_environment(self.environment, job_id)
        self._programs = dict(programs or {})
        self._timeout_s, self._submit_timeout_s, self._settle_s = timeout_s, submit_timeout_s, settle_s

    def available(self) -> str | None:
        """Returns why Slurm can't be used here; None where its programs are there (sacct may be missing)."""
        missing = [name for name in PROGRAMS if name != "sacct" and self._find(name) is None]
        if not missing:
            return None
        return (
            f"no {' and no '.join(missing)} on this machine: Slurm's programs are not on PATH. "
            "Run this on a login node of the cluster, or load its Slurm module"
        )

    def version(self) -> str | None:
        """Returns Slurm's version, such as `22.05.8`; None where sbatch does not print it."""
        match = re.search(r"\d+\.\d+\S*", self._call("sbatch", "--version").out)
        return match[0] if match else None

    def partitions(self) -> tuple[str, ...]:
        """Returns the names of all partitions.

        Raises:
            RunError: Slurm does not answer.
        """
        completed = self._call("sinfo", "-h", "-a", "-o", "%R")
        if completed.failed:
            raise RunError(f"Slurm does not answer: {completed.error}")
        return tuple(dict.fromkeys(line.strip() for line in completed.out.splitlines() if line.strip()))

    def submit(self, script: Path, options: Sequence[str] = ()) -> Submitted:
        """Submits a batch script. After an error the job may run all the same: look for its name.

        Args:
            script: the file, which sbatch copies.
            options: further ones of sbatch.
        """
        completed = self._call(
            "sbatch", "--parsable", *options, str(script), timeout_s=self._submit_timeout_s
        )
        if completed.failed:
            return Submitted(error=completed.error)
        for line in reversed(completed.out.splitlines()):
            if match := _JOB_ID.fullmatch(line.strip()):
                return Submitted(job_id=match[1])
        return Submitted(error=f"sbatch answered {completed.out.strip()[:200]!r} instead of a job id")

    def query(self, names: Collection[str], job_ids: Collection[str]) -> QueryResult:
        """Returns the states of jobs: one query for all, one more where some wait, one for each missing.

        Args:
            names: the names of the jobs, empty for any. Slurm uses ids again, so a job of another name is
                another user's or an older one.
            job_ids: jobs or array tasks (`12_3`). `12` for an array means those of its tasks that Slurm still
                has: name each task to get also those that the controller forgot.
        """
        ids = set(job_ids)
        try:
            queue = self._queue("--me")
            statuses = chosen_of(queue, names, ids)
            others = tuple(status for status in queue if status.job_id not in statuses)
            for job_id in sorted({base_of(job_id) for job_id in absent_of(ids, statuses)}):
                statuses |= chosen_of(self._show(job_id), names, ids - statuses.keys())
            self._name_failed_nodes(statuses)
            self._find_places(statuses)
        except _NoAnswer as why:
            return QueryResult(answer="failed", error=str(why))
        absent = absent_of(ids, statuses)
        if not absent:
            return QueryResult(answer="ok", statuses=statuses, others=others)
        past, error = self._history("-j", ",".join(sorted({base_of(job_id) for job_id in absent})))
        statuses = {**chosen_of(past, names, absent), **statuses}
        return QueryResult(answer="ok", statuses=statuses, error=error, others=others)

    def find_by_name(self, name: str) -> QueryResult:
        """Returns the jobs of this name in any state, for use after an sbatch whose answer was lost.

        It asks twice, some seconds apart, before it reports that there is none: the controller may still be
        taking in what sbatch sent.
        """
        try:
            statuses = named(self._queue("--me"), name)
            if not statuses and self._settle_s > 0:
                time.sleep(self._settle_s)
                statuses = named(self._queue("--me"), name)
        except _NoAnswer as why:
            return QueryResult(answer="failed", error=str(why))
        if statuses:
            return QueryResult(answer="ok", statuses=statuses)
        past, error = self._history("-S", HISTORY)
        return QueryResult(answer="ok", statuses=named(past, name), error=error)

    def cancel(self, job_ids: Collection[str], signal: str | None = None) -> str | None:
        """Cancels jobs; a job that has ended or never existed is no error.

        Args:
            job_ids: jobs and whole arrays (`12`) or array tasks (`12_3`); scancel quietly does nothing for
                the number that a task has of its own.
            signal: such as `TERM`: is sent to the batch scripts of running jobs instead, as Slurm itself does
                before a time limit. Jobs that wait are not touched.

        Returns:
            What went wrong, or None.
        """
        if not job_ids:
            return None
        batch_signal = () if signal is None else ("--batch", f"--signal={signal}", "--state=RUNNING")
        completed = self._call("scancel", *batch_signal, *sorted(job_ids))
        return completed.error if completed.failed and not _UNKNOWN_JOB.search(completed.error) else None

    # --- steps of a job ---

    def ask(self, program: str, *arguments: str, timeout_s: float | None = None) -> str:
        """Runs a program and returns its output.

        Raises:
            RunError: the program is not there, failed, or took too long.
        """
        completed = self._call(program, *arguments, timeout_s=timeout_s)
        if completed.failed:
            ending = (
                f"{program} ended with {completed.code}: " if completed.code and completed.message else ""
            )
            raise RunError(ending + completed.error)
        return completed.out

    def start(
        self, argv: Sequence[str], variables: Mapping[str, str], output: BinaryIO
    ) -> subprocess.Popen[bytes]:
        """Starts an `srun` that runs as long as its step, in a process group of its own.

        Args:
            argv: the whole command.
            variables: added to the environment.
            output: an open file that takes what the step prints.

        Raises:
            OSError: the program can't be run.
        """
        program = self._find(argv[0]) or argv[0]
        return reaper.start((program, *argv[1:]), {**self.environment, **variables}, output)

    # --- queries ---

    def _queue(self, *arguments: str) -> tuple[JobStatus, ...]:
        return self._read(
            parse_squeue, "squeue", "-h", "-a", "-r", "-t", "all", "-O", SQUEUE_FORMAT, *arguments
        )

    def _show(self, job_id: str) -> tuple[JobStatus, ...]:
        """Returns one job as scontrol shows it; jobs of other users and of hidden partitions too."""
        return self._read(parse_scontrol_jobs, "scontrol", "-o", "-a", "show", "job", job_id)

    def _read(
        self, parse: Callable[[str], tuple[JobStatus, ...]], program: str, *arguments: str
    ) -> tuple[JobStatus, ...]:
        completed = self._call(program, *arguments)
        if completed.failed:
            if completed.code is not None and _UNKNOWN_JOB.search(completed.error):
                return ()
            raise _NoAnswer(completed.error)
        try:
            return parse(completed.out)
        except Unreadable as why:
            raise _NoAnswer(str(why)) from why

    def _name_failed_nodes(self, statuses: dict[str, JobStatus]) -> None:
        """Adds the node that a job lost, which squeue does not print (nor does scontrol before 24.11)."""
        for job_id, status in statuses.items():
            if status.state == "node_fail" and status.failed_node is None:
                for detail in self._show(job_id):
                    if detail.job_id == job_id:
                        statuses[job_id] = replace(status, failed_node=detail.failed_node)

    def _find_places(self, statuses: dict[str, JobStatus]) -> None:
        """Adds the place in the queue to jobs that wait; it stays None where Slurm does not show it."""
        waiting = [job_id for job_id, status in statuses.items() if status.state == "pending"]
        if not waiting:
            return
        completed = self._call("squeue", "-h", "-a", "-r", "-t", "PENDING", "-O", WAITING_FORMAT)
        places = {} if completed.failed else parse_places(completed.out)
        for job_id in waiting:
            statuses[job_id] = replace(statuses[job_id], place=places.get(job_id))

    def _history(self, *arguments: str) -> tuple[tuple[JobStatus, ...], str | None]:
        """Returns the jobs that accounting remembers, and an error where it was asked in vain.

        A cluster without accounting is no error.
        """
        if self._find("sacct") is None:
            return (), None
        completed = self._call("sacct", "-X", "-nP", "--duplicates", "-o", SACCT_FORMAT, *arguments)
        if completed.failed:
            return (), None if _NO_HISTORY.search(completed.error) else completed.error
        try:
            return parse_sacct(completed.out), None
        except Unreadable as why:
            return (), str(why)

    # --- programs ---

    def _find(self, program: str) -> str | None:
        return shutil.which(self._programs.get(program, program), path=self.environment.get("PATH"))

    def _call(self, program: str, *arguments: str, timeout_s: float | None = None) -> _Completed:
        """Runs a program to its end, or kills it with all it started when it takes too long."""
        path = self._find(program)
        if path is None:
            return _Completed(program=program, code=None, message=f"no {program} on this machine")
        try:
            process = subprocess.Popen(
                (path, *arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as why:
            return _Completed(program=program, code=None, message=f"{program} could not be started: {why}")
        with process:
            return _finish(process, program, timeout_s or self._timeout_s)


def _finish(process: subprocess.Popen[bytes], program: str, limit_s: float) -> _Completed:
    message = ""
    try:
        out, error = _read(process, time.monotonic() + limit_s)
        process.wait(limit_s)
    except (TimeoutError, subprocess.TimeoutExpired):
        message = f"{program} did not answer within {limit_s:g} s"
    except OverflowError:
        message = f"{program} printed more than {MOST_BYTES:,} bytes"
    except BaseException:
        _kill(process)
        raise
    if message:
        _kill(process)
        return _Completed(program=program, code=None, message=message)
    return _Completed(
        program=program,
        code=process.returncode,
        out=out.decode("utf-8", "replace"),
        message=" ".join(error.decode("utf-8", "replace").split()),
    )


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Reads what a program prints, and its errors, to their ends.

    Raises:
        TimeoutError: that takes longer than until the deadline.
        OverflowError: there is more than `MOST_BYTES` of it.
    """
    pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
    texts = {pipe.fileno(): bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for descriptor in texts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                texts[key.fd] += (piece := os.read(key.fd, 1 << 16))
                if not piece:
                    selector.unregister(key.fd)
            if sum(map(len, texts.values())) > MOST_BYTES:
                raise OverflowError
    out, error = texts.values()
    return bytes(out), bytes(error)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a program and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
