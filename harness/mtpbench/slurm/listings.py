"""Pure: the output of squeue, scontrol and sacct, parsed into one record for each job.

Tested on what Slurm 22.05 and 24.11 printed. Job names may hold anything, line breaks and separators too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from mtpbench.slurm.states import NEVER, JobStatus, Place, State

SQUEUE_FORMAT = (
    "JobArrayID:|,State:|,Reason:|,RestartCnt:|,exit_code:|,NodeList:|,StartTime:|,TimeLeft:|,Name:|."
)
"""Fields for `squeue -O`, each with its separator. The last mark shows that a record was not cut off."""

WAITING_FORMAT = "JobArrayID:|,PriorityLong:|,Partition:|,Reason:|."
"""The fields of the jobs that wait."""
TURN_REASONS = frozenset(("Priority", "Resources", "None"))
"""Reasons of a job that only waits its turn; others wait for another job, a date, or a person."""

SACCT_FORMAT = "JobID,State,ExitCode,Reason,NodeList,JobName,Cluster"
"""Fields for `sacct -P -o`: the name stands where a separator in it does no harm."""

_STATES: dict[str, State] = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "COMPLETING": "completing",
    "STAGE_OUT": "completing",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "LAUNCH_FAILED": "failed",
    "RECONFIG_FAIL": "failed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "NODE_FAIL": "node_fail",
    "BOOT_FAIL": "node_fail",
    "OUT_OF_MEMORY": "out_of_memory",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "PREEMPTED": "preempted",
    "REQUEUED": "requeued",
    "REQUEUE_FED": "requeued",
    "REQUEUE_HOLD": "requeued",
    "SPECIAL_EXIT": "requeued",
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
}

_ENDED = frozenset(("completed", "failed", "timeout", "node_fail", "out_of_memory", "cancelled", "preempted"))


class Unreadable(ValueError):
    """The output of a program is not what was asked for: it was cut off, or is another program's."""


MOST_TASKS = 100_000
"""Tasks of one record; Slurm's own limit of an array is 1,001 unless a site has raised it."""
_NUMBER = "[0-9]{1,18}"
_ID = rf"{_NUMBER}(?:[_+][^|\n]*)?"
_SQUEUE_HEAD = (
    rf"(?P<id>{_ID})\|(?P<state>[A-Z_]+)\|(?P<reason>[^|\n]*)\|(?P<restarts>{_NUMBER})\|"
    rf"(?P<status>{_NUMBER}(?::{_NUMBER})?)\|"
    r"(?P<nodes>[^|\n]*)\|(?P<start>[^|\n]*)\|(?P<left>[^|\n]*)\|"
)
_SQUEUE = re.compile(rf"{_SQUEUE_HEAD}(?P<name>.*)\|\.", re.DOTALL)
_SQUEUE_BEGINS = re.compile(rf"(?:\A|(?<=\|\.\n))(?={_SQUEUE_HEAD})")


def parse_squeue(text: str) -> tuple[JobStatus, ...]:
    """Returns every job in the output of `squeue -h -r -O SQUEUE_FORMAT`.

    Raises:
        Unreadable: something else was printed, or the output was cut off.
    """
    return tuple(map(_read_squeue, _records(text, _SQUEUE_BEGINS, "squeue")))


_WAITING = re.compile(
    rf"(?P<id>{_ID})\|(?P<priority>{_NUMBER})\|(?P<partition>[^|\n]*)\|(?P<reason>[^|\n]*)\|\."
)


def parse_places(text: str) -> dict[str, Place]:
    """Returns, by job id, the place of every job that waits its turn, from `squeue -O WAITING_FORMAT`.

    The higher priority comes first, then what squeue shows first. A line that can't be read is left out.
    """
    queues: dict[str, list[tuple[int, str]]] = {}
    for line in text.splitlines():
        match = _WAITING.fullmatch(line.strip())
        if match is not None and match["reason"] in TURN_REASONS:
            queues.setdefault(match["partition"], []).append((-int(match["priority"]), match["id"]))
    return {
        job_id: Place(number=number, of=len(waiting), partition=partition)
        for partition, waiting in queues.items()
        for number, (_, job_id) in enumerate(sorted(waiting, key=lambda entry: entry[0]), 1)
    }


def _read_squeue(record: str) -> JobStatus:
    match = _SQUEUE.fullmatch(record)
    if match is None:
        raise Unreadable(f"squeue printed {_start(record)!r}, which is not what it was asked for")
    status = match["status"]
    # 22.05 prints the status of wait(2), 24.11 exit code and signal.
    ending = _ending(status) if ":" in status else _Ending(code=int(status) >> 8, signal=int(status) & 0x7F)
    return _status(
        job_id=match["id"],
        name=match["name"],
        raw=match["state"],
        reason=match["reason"],
        nodes=match["nodes"],
        restarts=int(match["restarts"]),
        ending=ending,
        start=match["start"],
        time_left=match["left"],
    )


_SCONTROL_BEGINS = re.compile(r"^(?=JobId=[0-9])", re.MULTILINE)
_SCONTROL_FIELD = re.compile(r"(?:^|\s)(?P<key>[A-Za-z][\w/:.]*)=(?P<value>\S*)")
_SCONTROL_NAME = re.compile(r"JobName=(?P<name>.*?) (?=UserId=|JobState=)", re.DOTALL)


def parse_scontrol_jobs(text: str) -> tuple[JobStatus, ...]:
    """Returns every job in the output of `scontrol -o show job`; an array's waiting tasks share a record.

    Raises:
        Unreadable: something else was printed, or the output was cut off.
    """
    if text.strip() == "No jobs in the system":
        return ()
    return tuple(
        status
        for record in _records(text, _SCONTROL_BEGINS, "scontrol")
        for status in _read_scontrol_record(record.rstrip())
    )


def _read_scontrol_record(record: str) -> Iterator[JobStatus]:
    named = _SCONTROL_NAME.search(record)
    rest = record if named is None else record[: named.start()] + record[named.end() :]
    # The first value of a key counts: text of a user's own may follow the fields of interest.
    fields: dict[str, str] = {}
    for match in _SCONTROL_FIELD.finditer(rest):
        fields.setdefault(match["key"], match["value"])
    numbers = [fields["JobId"], fields.get("ArrayJobId", "" if "ArrayTaskId" in fields else "0")]
    is_whole = {"JobState", "ExitCode"} <= fields.keys() and all(re.fullmatch(_NUMBER, n) for n in numbers)
    if named is None or not is_whole:
        raise Unreadable(f"scontrol printed {_start(record)!r}, which is not a whole job")
    tasks = fields.get("ArrayTaskId")
    status = _status(
        job_id=fields["JobId"],
        name=named["name"],
        raw=fields["JobState"],
        reason=fields.get("Reason"),
        nodes=fields.get("NodeList"),
        restarts=_whole(fields["Restarts"]) if "Restarts" in fields else None,
        ending=_ending(fields["ExitCode"]),
        start=fields.get("StartTime"),
        failed_node=fields.get("FailedNode"),
    )
    if tasks is None:
        yield status
    else:
        yield from (replace(status, job_id=f"{fields['ArrayJobId']}_{task}") for task in _tasks(tasks))


def _tasks(text: str) -> Iterator[int]:
    """Yields the tasks of an array: `0-6:2,9%4` is 0, 2, 4, 6 and 9."""
    left = MOST_TASKS
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(rf"({_NUMBER})(?:-({_NUMBER})(?::({_NUMBER}))?)?", part)
        first, last, step = match.groups() if match is not None else ("1", "0", "0")
        tasks = range(int(first), int(last or first) + 1, int(step or 1) or 1)
        left -= len(tasks)
        if not tasks or left < 0 or step == "0":
            raise Unreadable(f"{_start(text)!r} are not tasks of an array (Slurm cuts long lists off)")
        yield from tasks


_SACCT_BEGINS = re.compile(rf"^(?={_ID}\|[A-Z_]+[^|\n]*\|{_NUMBER}:{_NUMBER}\|)", re.MULTILINE)
_BY = re.compile(rf"CANCELLED by ({_NUMBER})")


def parse_sacct(text: str) -> tuple[JobStatus, ...]:
    """Returns every job in the output of `sacct -X -nP --duplicates -o SACCT_FORMAT`, as it was at its end.

    A requeued job has a record for each of its runs; the last counts, the others are its restarts. A job that
    the history calls running is `unknown`: only the controller knows that.

    Raises:
        Unreadable: something else was printed.
    """
    statuses: dict[str, JobStatus] = {}
    for record in _records(text, _SACCT_BEGINS, "sacct"):
        status = _read_sacct(record)
        before = statuses.get(status.job_id)
        restarts = (before.restarts or 0) + 1 if before and before.name == status.name else 0
        statuses[status.job_id] = replace(status, restarts=restarts)
    return tuple(statuses.values())


def _read_sacct(record: str) -> JobStatus:
    fields = record.split("|", 5)
    if len(fields) < 6 or "|" not in fields[5]:
        raise Unreadable(f"sacct printed {_start(record)!r}, which is not what it was asked for")
    job_id, state, ending, reason, nodes, rest = fields
    by = _BY.match(state)
    status = _status(
        job_id=job_id,
        name=rest.rpartition("|")[0],
        raw=state.partition(" ")[0].rstrip("+"),
        reason=reason,
        nodes=nodes,
        restarts=0,
        ending=_ending(ending),
        cancelled_by=int(by[1]) if by else None,
    )
    return status if status.state in _ENDED else replace(status, state="unknown")


def _records(text: str, begins: re.Pattern[str], program: str) -> Iterator[str]:
    """Yields the records of a text, without the line break that ends each."""
    if not text.strip():
        return
    cuts = [match.start() for match in begins.finditer(text)]
    if before := text[: cuts[0]].strip() if cuts else text:
        raise Unreadable(f"{program} printed {_start(before)!r}, which is not what it was asked for")
    for first, last in pairwise([*cuts, len(text)]):
        yield text[first:last].rstrip("\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """An ending holds a batch script's exit code and the signal that ended it, each 0 for none."""

    code: int
    signal: int


def _start(text: str) -> str:
    return text.strip()[:80]


def _status(
    *,
    job_id: str,
    name: str,
    raw: str,
    reason: str | None,
    nodes: str | None,
    restarts: int | None,
    ending: _Ending,
    start: str | None = None,
    time_left: str | None = None,
    failed_node: str | None = None,
    cancelled_by: int | None = None,
) -> JobStatus:
    state = _STATES.get(raw, "unknown")
    over = state in _ENDED
    return JobStatus(
        job_id=job_id,
        name=name,
        state=state,
        raw=raw,
        reason=_or_none(reason),
        nodes=_or_none(nodes),
        restarts=restarts,
        exit_code=ending.code if over and not ending.signal else None,
        signal=ending.signal if over and ending.signal else None,
        start_estimate=_or_none(start) if state == "pending" else None,
        time_left_s=_seconds(time_left) if not over else None,
        dependency_never=reason == NEVER,
        failed_node=_or_none(failed_node),
        cancelled_by=cancelled_by,
    )


def _or_none(text: str | None) -> str | None:
    return None if text in (None, "", "None", "N/A", "(null)", "Unknown", "None assigned") else text


def _ending(text: str) -> _Ending:
    """Parses the end of a script: `7:0` is exit code 7, `0:11` signal 11."""
    code, _, number = text.partition(":")
    return _Ending(code=_whole(code), signal=_whole(number))


def _whole(text: str) -> int:
    """Parses a whole number.

    Raises:
        Unreadable: it is none, or one that Slurm can't mean.
    """
    if re.fullmatch(_NUMBER, text) is None:
        raise Unreadable(f"{_start(text)!r} stands where a number is due")
    return int(text)


_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})")


def _seconds(text: str | None) -> float | None:
    """Converts `364-23:59:59`, `1:02:03` or `9:59` to seconds; None for UNLIMITED and the like."""
    match = _CLOCK.fullmatch(text or "")
    if match is None:
        return None
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
