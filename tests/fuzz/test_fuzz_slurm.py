"""What Slurm's programs print: read, or refused by name; never another error, never without an end."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.errors import InputError
from mtpbench.slurm.allocation import _answers, expand_nodes, job_gpus_per_node, job_id_of, node_addresses
from mtpbench.slurm.client import MOST_BYTES, Slurm
from mtpbench.slurm.listings import (
    MOST_TASKS,
    Unreadable,
    parse_places,
    parse_sacct,
    parse_scontrol_jobs,
    parse_squeue,
)
from mtpbench.slurm.states import JobStatus, cause

SQUEUE = (
    "12_3|RUNNING|None|0|0|n[0-1]|2026-11-24T09:00:00|1:00:00|mtpbench.a.1.0a1b2c3d|.\n"
    "13|PENDING|Priority|1|0:0||N/A|UNLIMITED|a|b\nc|.\n"
)
WAITING = "13|4294901|batch|Priority|.\n14_1|7|batch|Resources|.\n"
SCONTROL = (
    "JobId=12 ArrayJobId=12 ArrayTaskId=0-6:2,9%4 JobName=a b UserId=root(0) GroupId=root(0) "
    "JobState=PENDING Reason=Priority Restarts=0 ExitCode=0:0 NodeList=n[0-1] FailedNode=n1 "
    "StartTime=Unknown\n"
)
SACCT = "12|CANCELLED by 0|0:15|None|n0|a|b|c\n12_3+|NODE_FAIL|0:0|None|n[0-1]|name|cluster\n"
NODES = "NodeName=n0 Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=n0 State=IDLE\n"
JOB = "JobId=41 JobName=x TRES=cpu=4,node=4,gres/gpu=16 TresPerNode=gres:gpu:gb200:4 ExitCode=0:0\n"
ROLL = (
    '{"node": "n0", "host": "n0", "sees": true, "address": null, "visible_gpus": "0,1", "python": "3.11"}\n'
)

NUMBERS = st.one_of(
    st.sampled_from(
        [
            "0",
            "-1",
            "²",
            "٣",
            "9" * 18,
            "9" * 19,
            "9" * 5000,
            "1e9",
            "0x1",
            "NaN",
            "inf",
            "",
            " ",
            "+1",
            "1:0:0:0",
            "0-9" * 9,
        ]
    ),
    st.integers(-(10**25), 10**25).map(str),
)
PIECES = st.one_of(
    NUMBERS,
    st.sampled_from(
        [
            "|",
            "|.",
            "\n",
            "\r\n",
            "\0",
            "=",
            ":",
            "_",
            "[",
            "]",
            "[" * 40 + "]" * 40,
            ",",
            "%",
            "-",
            "JobId=1",
            "ArrayTaskId=0-999999999999",
            "\ud800",
            "\x1b[31m",
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(string.printable, max_size=20),
)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """What a program prints, with numbers, separators or whole parts replaced, cut out or repeated."""
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(text)))
        last = min(len(text), first + draw(st.integers(0, 12)))
        text = text[:first] + draw(PIECES) + text[last:]
    if draw(st.booleans()):
        digits = [index for index, character in enumerate(text) if character.isdigit()]
        if digits:
            at = draw(st.sampled_from(digits))
            text = text[:at] + draw(NUMBERS) + text[at + 1 :]
    return text * draw(st.sampled_from([1, 1, 1, 2]))


PARSERS: list[tuple[Callable[[str], object], str]] = [
    (parse_squeue, SQUEUE),
    (parse_scontrol_jobs, SCONTROL),
    (parse_sacct, SACCT),
]


@pytest.mark.parametrize(("parse", "text"), PARSERS, ids=["squeue", "scontrol", "sacct"])
@given(data=st.data())
@settings(max_examples=600)
def test_a_listing_is_read_or_unreadable(
    parse: Callable[[str], object], text: str, data: st.DataObject
) -> None:
    said = ""
    statuses: object = ()
    try:
        statuses = parse(data.draw(damaged(text)))
    except Unreadable as why:
        said = str(why)
    assert len(said) < 300
    assert isinstance(statuses, tuple)
    assert len(statuses) <= 4 * MOST_TASKS
    for status in statuses[:20]:
        assert isinstance(status, JobStatus)
        cause(status)
        assert status.base_id
        assert status.time_left_s is None or status.time_left_s >= 0


@given(damaged(WAITING), damaged(NODES), damaged(JOB), damaged(ROLL))
@settings(max_examples=400)
def test_other_answers_give_what_can_be_read(waiting: str, nodes: str, job: str, roll: str) -> None:
    assert all(1 <= place.number <= place.of for place in parse_places(waiting).values())
    assert all(isinstance(address, str) for address in node_addresses(nodes).values())
    gpus = job_gpus_per_node(job, 4)
    assert gpus is None or gpus >= 0
    assert all(isinstance(answer, dict) for answer in _answers(roll))


@given(damaged("n[0-2,7],gpu-[001-002]-x,rack[1-2]node[01-18]"))
@settings(max_examples=600)
def test_a_node_list_has_an_end(text: str) -> None:
    said, names = "", ()
    try:
        names = expand_nodes(text)
    except InputError as why:
        said = str(why)
    assert len(said) < 300
    assert len(names) <= 65_536


@given(
    st.dictionaries(st.sampled_from(["SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"]), PIECES)
)
def test_the_id_of_a_job_is_a_text(environment: dict[str, str]) -> None:
    assert isinstance(job_id_of(environment), str)


@given(data=st.data())
@settings(max_examples=25)
def test_the_client_takes_whatever_its_programs_print(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("programs")
    for name in ("sbatch", "squeue", "scontrol", "sacct", "scancel", "sinfo"):
        (folder / name).write_text(
            f'#!/bin/sh\n/bin/cat "{folder}/{name}.out"; exit {data.draw(st.sampled_from([0, 0, 1]))}\n'
        )
        (folder / name).chmod(0o755)
        text = data.draw(damaged(data.draw(st.sampled_from([SQUEUE, SCONTROL, SACCT, "12;cluster\n", ""]))))
        (folder / f"{name}.out").write_bytes(text.encode("utf-8", "surrogatepass"))
    slurm = Slurm({"PATH": str(folder)}, settle_s=0.0)
    submitted = slurm.submit(folder / "x.sh")
    assert (submitted.job_id is None) != (submitted.error is None)
    assert slurm.query(["a"], ["12_3", "13"]).answer in ("ok", "failed")
    assert slurm.find_by_name("a").answer in ("ok", "failed")


def test_a_program_that_prints_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec /usr/bin/yes x y z\n")
    (tmp_path / "squeue").chmod(0o755)
    result = Slurm({"PATH": str(tmp_path)}).query([], ["12"])
    assert result.answer == "failed"
    assert result.error == f"squeue printed more than {MOST_BYTES:,} bytes"
