"""A property of batch scripts: any text in any place is refused, or stands as it is and does nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mtpbench.errors import InputError
from mtpbench.slurm.cluster_profile import BatchJob, ClusterProfile, batch_text
from mtpbench.slurm.journal import Journal

NAMES = ("partition", "account", "qos", "reservation", "constraint", "gres")
PLACES = (*NAMES, "comment", "results", "name", "python", "variable", "command", "key")
PIECES = st.sampled_from(
    [
        *(
            "$(touch PWNED)",
            "`touch PWNED`",
            "; touch PWNED;",
            "'",
            '"',
            "\\",
            "#",
            " # ",
            "\n",
            "\r",
            "\ntouch PWNED\n",
        ),
        *(
            "\n#SBATCH --wrap=x\n",
            "%",
            "%j",
            "%%",
            " ",
            "\t",
            "--",
            "=",
            "\0",
            "\x1b",
            "\x7f",
            "\u2028",
        ),
        *(
            "\ud800",
            "é",
            "#SBATCH",
            "${HOME}",
            "&& touch PWNED",
            "|touch PWNED",
            ">PWNED",
            "*",
            "[a]",
            "~",
            "!",
            "a",
            "b/c",
        ),
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=5).map("".join) | st.text(max_size=12).filter(bool)


def words_of_sbatch(line: str) -> list[str]:
    """The words that sbatch reads in a directive: it knows quotes, backslashes, and `#` before a comment."""
    words: list[str] = []
    word, quote, escaped, begun = "", "", False, False
    for character in line:
        if escaped:
            word, escaped, begun = word + character, False, True
        elif character == "\\":
            escaped = True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "'\"":
            quote, begun = character, True
        elif character == "#":
            break
        elif character.isspace():
            words, word, begun = [*words, word] if begun else words, "", False
        else:
            word, begun = word + character, True
    assert not quote
    return [*words, word] if begun else words


def script(places: dict[str, str], tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The script of a job with these texts in their places, and the directives that it is to have."""
    profile: dict[str, Any] = {
        "time_limit": "1:00:00",
        **{name: places[name] for name in NAMES},
        "environment": {"V": places["variable"]},
        "pre_commands": [["true", places["command"]]],
        "directives": [f"--comment={places['comment']}"],
    }
    checked = ClusterProfile.model_validate(profile)
    journal = Journal(tmp_path / places["results"])
    log = journal.log_pattern(7, array=False)
    job = BatchJob(
        name=f"mtpbench.{places['name']}.1.0a1b2c3d",
        nodes=2,
        gpus_per_node=4,
        log=log,
        python=places["python"],
        commands=(("job", str(journal.job_path(places["key"]))),),
    )
    directives = {name: places[name] for name in NAMES if name != "gres"}
    directives |= {
        "gres": f"{places['gres']}:4",
        "comment": places["comment"],
        "job-name": job.name,
        "output": log,
    }
    return batch_text(checked, job), directives


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), text=TEXTS)
@example(place="results", text="a\ntouch PWNED; b")
@example(place="name", text="tiny\n")
@example(place="results", text='50%j "off" # it\'s')
@example(place="key", text="off\n$(touch PWNED)")
@example(place="python", text="/opt/my python/bin/$(touch PWNED)")
def test_any_text_in_any_place_is_refused_or_stands_as_it_is(tmp_path: Path, place: str, text: str) -> None:
    places = dict.fromkeys(PLACES, "plain") | {place: text}
    try:
        made, directives = script(places, tmp_path)
    except (InputError, ValidationError, ValueError, OSError):
        assert not (text.isascii() and text.isalnum())
        return
    lines = made.split("\n")
    body = lines.index("set -euo pipefail")
    assert lines[0] == "#!/bin/bash"
    assert all(line.startswith("#SBATCH --") for line in lines[1:body])
    found = {}
    for line in lines[1:body]:
        (word,) = words_of_sbatch(line.removeprefix("#SBATCH "))
        name, _, value = word.removeprefix("--").partition("=")
        assert name not in found
        found[name] = value
    assert {name: found[name] for name in directives} == directives
    assert set(found) - set(directives) == {
        *("nodes", "ntasks-per-node", "time", "open-mode", "requeue", "signal")
    }
    run(made, places, tmp_path)


def run(made: str, places: dict[str, str], folder: Path) -> None:
    """Runs a script with stand-ins: it sets the variable, and calls with the words as they are."""
    encoded = made.encode()
    assert subprocess.run(["bash", "-n"], input=encoded, capture_output=True, check=False).returncode == 0
    ahead = 'exec() { printf "%s\\0" "$V" "$@"; }; true() { printf "%s\\0" "$@"; }\n'
    done = subprocess.run(
        ["bash", "-c", ahead + made],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    printed = done.stdout.decode().split("\0")[:-1]
    job = str(Journal(folder / places["results"]).job_path(places["key"]))
    assert printed == [places["command"], places["variable"], places["python"], "-m", "mtpbench", "job", job]
    assert not list(folder.rglob("PWNED"))


@pytest.mark.parametrize(
    "option", ["--job-nam=x", "--outp=/etc/x", "--wra=id", "--clus=c", "--export-file=x", "--hel"]
)
def test_the_beginning_of_an_option_that_is_ours_is_that_option(option: str) -> None:
    """sbatch takes it for the whole."""
    with pytest.raises(ValidationError, match="set by mtpbench itself"):
        ClusterProfile.model_validate({"time_limit": "1:00:00", "directives": [option]})
