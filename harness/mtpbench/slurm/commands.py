"""Slurm's own programs: the only place that calls them.

Three answers, never two: a job was seen, is absent (the controller answered and does not know it), or nobody
knows because the query failed. sbatch may fail although its job runs; `find_by_name` tells.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mtpbench.errors import RunError
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
from mtpbench.slurm.states import JobSight

QUERY_TIMEOUT_S = 20.0
SUBMIT_TIMEOUT_S = 90.0
"""sbatch itself waits and tries again while the controller is busy."""
SETTLE_S = 3.0
"""After a failed sbatch the controller may still be taking the job in when it answers a query."""
PROGRAMS = ("sbatch", "squeue", "scontrol", "sacct", "scancel", "sinfo")
HISTORY = "now-30days"

_INHERITED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SALLOC_", "SRUN_")
_KEPT = frozenset(("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"))
_UNKNOWN_JOB = re.compile("Invalid job id specified", re.IGNORECASE)
_NO_HISTORY = re.compile("accounting storage is disabled", re.IGNORECASE)
_JOB_ID = re.compile(r"(\d+)(?:;.*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """What sbatch answered: a job id, or why there is none (which does not mean that no job runs)."""

    job_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What Slurm says of some jobs.

    Args:
        answer: `failed` where Slurm did not answer: then nothing is known of any job.
        sights: by job id, `12` or `12_3`; one that was asked for and is not here is absent.
        error: why it failed; with `ok`, why the history could not be asked for what the controller forgot.
    """

    answer: Literal["ok", "failed"]
    sights: Mapping[str, JobSight] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """How a program ended. `code` is None where it never ended or could not be started."""

    code: int | None
    out: str
    error: str

    @property
    def failed(self) -> bool:
        return self.code != 0


class _NoAnswer(Exception):
    """Slurm did not answer, or not in words that can be read."""


class Slurm:
    """Runs Slurm's programs with an environment free of what an enclosing job left there.

    Args:
        environment: what they inherit; SLURM_CONF stays, other settings of Slurm's do not.
        programs: paths by name, for those that are not found on PATH.
        timeout_s: the longest that a query may take.
        submit_timeout_s: the longest that sbatch may take.
        settle_s: how long after a first "no such name" to ask again.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        programs: Mapping[str, str] | None = None,
        *,
        timeout_s: float = QUERY_TIMEOUT_S,
        submit_timeout_s: float = SUBMIT_TIMEOUT_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.environment = clean(os.environ if environment is None else environment)
        self._programs = dict(programs or {})
        self._timeout_s, self._submit_timeout_s, self._settle_s = timeout_s, submit_timeout_s, settle_s

    def available(self) -> str | None:
        """Why Slurm can't be used here; None where its programs are there (sacct may be missing)."""
        missing = [name for name in PROGRAMS if name != "sacct" and self._find(name) is None]
        if not missing:
            return None
        return (
            f"no {' and no '.join(missing)} on this machine: Slurm's programs are not on PATH. "
            "Run this on a login node of the cluster, or load its Slurm module"
        )

    def version(self) -> str | None:
        """Slurm's version, such as `22.05.8`; None where sbatch does not tell."""
        found = re.search(r"\d+\.\d+\S*", self._call("sbatch", "--version").out)
        return found[0] if found else None

    def partitions(self) -> tuple[str, ...]:
        """The names of all partitions.

        Raises:
            RunError: Slurm does not answer.
        """
        said = self._call("sinfo", "-h", "-a", "-o", "%R")
        if said.failed:
            raise RunError(f"Slurm does not answer: {said.error}")
        return tuple(dict.fromkeys(line.strip() for line in said.out.splitlines() if line.strip()))

    def submit(self, script: Path, words: Sequence[str] = ()) -> Submitted:
        """Submit a batch script. After an error the job may run all the same: look for its name.

        Args:
            script: the file, which sbatch copies.
            words: further options of sbatch.
        """
        said = self._call("sbatch", "--parsable", *words, str(script), timeout_s=self._submit_timeout_s)
        if said.failed:
            return Submitted(error=said.error)
        for line in reversed(said.out.splitlines()):
            if found := _JOB_ID.fullmatch(line.strip()):
                return Submitted(job_id=found[1])
        return Submitted(error=f"sbatch answered {said.out.strip()[:200]!r} instead of a job id")

    def look(self, names: Collection[str], job_ids: Collection[str]) -> Look:
        """What becomes of jobs: one query for all, one more where some wait, and one for each that it lacks.

        Args:
            names: the names of the jobs; ids come round again, and one of another name is another's job.
                Empty for any name.
            job_ids: jobs or array tasks (`12_3`). `12` for an array stands for those of its tasks that Slurm
                still has: name each task to learn also of those that the controller forgot.
        """
        wanted = set(job_ids)
        if not wanted:
            return Look(answer="ok")
        try:
            sights = _chosen(self._queue("--me"), names, wanted)
            for job_id in sorted({_base(one) for one in _absent(wanted, sights)}):
                sights |= _chosen(self._show(job_id), names, wanted - sights.keys())
            self._name_failed_nodes(sights)
            self._find_places(sights)
        except _NoAnswer as why:
            return Look(answer="failed", error=str(why))
        absent = _absent(wanted, sights)
        if not absent:
            return Look(answer="ok", sights=sights)
        past, error = self._history("-j", ",".join(sorted({_base(one) for one in absent})))
        return Look(answer="ok", sights={**_chosen(past, names, absent), **sights}, error=error)

    def find_by_name(self, name: str) -> Look:
        """The jobs of this name, whatever their state: after an sbatch whose answer was lost.

        Asks twice, some seconds apart, before it says that there is none: the controller may still be taking
        in what sbatch sent.
        """
        try:
            sights = _named(self._queue("--me"), name)
            if not sights and self._settle_s > 0:
                time.sleep(self._settle_s)
                sights = _named(self._queue("--me"), name)
        except _NoAnswer as why:
            return Look(answer="failed", error=str(why))
        if sights:
            return Look(answer="ok", sights=sights)
        past, error = self._history("-S", HISTORY)
        return Look(answer="ok", sights=_named(past, name), error=error)

    def cancel(self, job_ids: Collection[str], signal: str | None = None) -> str | None:
        """Cancel jobs; one that has ended or never was is no error.

        Args:
            job_ids: jobs and whole arrays (`12`) or array tasks (`12_3`); scancel quietly does nothing for
                the number that a task has of its own.
            signal: such as `TERM`: send it to the batch scripts of those that run instead, as Slurm itself
                does before a time limit. Those that wait are left alone.

        Returns:
            What went wrong, or None.
        """
        if not job_ids:
            return None
        gently = () if signal is None else ("--batch", f"--signal={signal}", "--state=RUNNING")
        said = self._call("scancel", *gently, *sorted(job_ids))
        return said.error if said.failed and not _UNKNOWN_JOB.search(said.error) else None

    # --- queries ---

    def _queue(self, *words: str) -> tuple[JobSight, ...]:
        return self._read(parse_squeue, "squeue", "-h", "-a", "-r", "-t", "all", "-O", SQUEUE_FORMAT, *words)

    def _show(self, job_id: str) -> tuple[JobSight, ...]:
        """Jobs of other users and of hidden partitions, too."""
        return self._read(parse_scontrol_jobs, "scontrol", "-o", "-a", "show", "job", job_id)

    def _read(
        self, parse: Callable[[str], tuple[JobSight, ...]], program: str, *words: str
    ) -> tuple[JobSight, ...]:
        said = self._call(program, *words)
        if said.failed:
            if said.code is not None and _UNKNOWN_JOB.search(said.error):
                return ()
            raise _NoAnswer(said.error)
        try:
            return parse(said.out)
        except Unreadable as why:
            raise _NoAnswer(str(why)) from why

    def _name_failed_nodes(self, sights: dict[str, JobSight]) -> None:
        """Add the node that a job lost, which squeue does not tell (nor does scontrol before 24.11)."""
        for job_id, sight in sights.items():
            if sight.state == "node_fail" and sight.failed_node is None:
                for shown in self._show(job_id):
                    if shown.job_id == job_id:
                        sights[job_id] = replace(sight, failed_node=shown.failed_node)

    def _find_places(self, sights: dict[str, JobSight]) -> None:
        """Add where waiting jobs stand; what can't be told is left out."""
        waiting = [job_id for job_id, sight in sights.items() if sight.state == "pending"]
        if not waiting:
            return
        said = self._call("squeue", "-h", "-a", "-r", "-t", "PENDING", "-O", WAITING_FORMAT)
        places = {} if said.failed else parse_places(said.out)
        for job_id in waiting:
            sights[job_id] = replace(sights[job_id], place=places.get(job_id))

    def _history(self, *words: str) -> tuple[tuple[JobSight, ...], str | None]:
        """What accounting remembers, and why it could not be asked where that is news."""
        if self._find("sacct") is None:
            return (), None
        said = self._call("sacct", "-X", "-nP", "--duplicates", "-o", SACCT_FORMAT, *words)
        if said.failed:
            return (), None if _NO_HISTORY.search(said.error) else said.error
        try:
            return parse_sacct(said.out), None
        except Unreadable as why:
            return (), str(why)

    # --- programs ---

    def _find(self, program: str) -> str | None:
        return shutil.which(self._programs.get(program, program), path=self.environment.get("PATH"))

    def _call(self, program: str, *words: str, timeout_s: float | None = None) -> _Said:
        """Run a program to its end, or kill it with all it started when it takes too long."""
        found = self._find(program)
        if found is None:
            return _Said(code=None, out="", error=f"no {program} on this machine")
        limit_s = timeout_s or self._timeout_s
        try:
            process = subprocess.Popen(
                (found, *words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as why:
            return _Said(code=None, out="", error=f"{program} could not be started: {why}")
        with process:
            try:
                out, error = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                _kill(process)
                return _Said(code=None, out="", error=f"{program} did not answer within {limit_s:g} s")
            except BaseException:
                _kill(process)
                raise
        code, said = process.returncode, " ".join(error.decode("utf-8", "replace").split())
        if code:
            said = said or f"{program} ended with {code} and said nothing"
        return _Said(code=code, out=out.decode("utf-8", "replace"), error=said)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what an enclosing job or a user's profile set for Slurm's programs.

    They take options from there: a job submitted inside another would inherit its nodes and its tasks.
    """
    return {
        name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_INHERITED)
    }


def _base(job_id: str) -> str:
    return job_id.partition("_")[0]


def _absent(wanted: Iterable[str], sights: Mapping[str, JobSight]) -> set[str]:
    seen = {sight.base_id for sight in sights.values()} | sights.keys()
    return {job_id for job_id in wanted if job_id not in seen}


def _chosen(
    sights: Iterable[JobSight], names: Collection[str], wanted: Collection[str]
) -> dict[str, JobSight]:
    known = set(map(_told, names))
    return {
        sight.job_id: sight
        for sight in sights
        if (sight.job_id in wanted or sight.base_id in wanted) and (not known or _told(sight.name) in known)
    }


def _named(sights: Iterable[JobSight], name: str) -> dict[str, JobSight]:
    return {sight.job_id: sight for sight in sights if _told(sight.name) == _told(name)}


def _told(name: str) -> str:
    """A job's name as the history keeps it: its double quotes are turned into back quotes."""
    return name.replace('"', "`")
