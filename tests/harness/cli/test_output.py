"""Where words go: encodings, closed pipes, full disks, markup and control characters in names.

Public reports of the same: Textualize/rich#68, microsoft/conductor#401, louwrentius/fio-plot#12.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mtpbench.cli import main
from mtpbench.cli.options import Sink
from mtpbench_analysis.cli.options import make_console

POINTS = "arm,interactivity_tps,tput_tps_per_gpu\noff,40,100\noff,60,50\nmtp,45,150\nmtp,70,60\n"
HOSTILE = "\x1b[31m[red]≥ é …"
COMMANDS = (
    ("plan", "SWEEP"),
    ("schema",),
    ("status", "SWEEP", "--results", "RESULTS"),
    ("watch", "FOLDER", "--once"),
    ("recompute", "FOLDER"),
    ("run", "SWEEP", "--simulate", "--results", "RESULTS"),
    ("compare", "FOLDER", "--full", "--curve"),
    ("compare", "FOLDER", "--format", "md"),
    ("compare", "FOLDER", "--format", "csv"),
    ("best", "FOLDER"),
    ("regress", "FOLDER", "OTHER"),
    ("report", "FOLDER", "-o", "page.html"),
    ("plot", "FOLDER", "-o", "plot.svg"),
    ("import", "auto", "POINTS", "-o", "again.csv", "--list"),
    ("compare", "POINTS"),
    ("doctor",),
    ("--help",),
)


@pytest.fixture(scope="module")
def stored(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep whose words are no ASCII, its results, and points with hostile names."""
    folder = tmp_path_factory.mktemp("words")
    text = simulated.read_text("utf-8").replace("Does it pay?", '"Zahlt es sich aus für ≥ 2 [red]?"')
    (folder / "tiny.yaml").write_text(text, "utf-8")
    shutil.copytree(simulated.parent / "results", folder / "results")
    shutil.copytree(folder / "results", folder / "other")
    (folder / "points.csv").write_text(POINTS.replace("mtp", HOSTILE), "utf-8")
    return folder


@pytest.fixture
def words(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)
    places = {
        "SWEEP": stored / "tiny.yaml",
        "RESULTS": stored / "results",
        "FOLDER": stored / "results" / "tiny.simulated",
        "OTHER": stored / "other" / "tiny.simulated",
        "POINTS": stored / "points.csv",
    }
    return lambda word: str(places.get(word, word))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_command_prints_in_any_encoding_and_no_control_character(
    encoding: str, words: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in COMMANDS:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "argv", ["mtpbench", *map(words, command)])
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as end:
            main()
        printed = b""
        for stream in streams:
            stream.flush()
            printed += stream.buffer.getvalue()  # type: ignore[attr-defined]
        # Two sweeps of so few points tell nothing, which is said.
        assert end.value.code == (2 if command[0] == "regress" else 0), (command, printed[-2000:])
        assert printed, command
        assert b"\x1b" not in printed, command
        assert b"Traceback" not in printed, command


def shell(stored: Path, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = f'"{sys.executable}" -m mtpbench'
    return subprocess.run(
        ["bash", "-c", line.replace("mtpbench", program)],
        cwd=stored,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_a_run_goes_on_when_nobody_reads_it_any_more(stored: Path, tmp_path: Path) -> None:
    for at, (end, code) in enumerate((("| true", 0), (">&- 2>&- <&-", 0), ("> /dev/full", 4))):
        results = tmp_path / str(at)
        line = f"set -o pipefail; mtpbench run tiny.yaml --simulate --results {results} {end}"
        assert shell(stored, line).returncode == code, end
        assert len(list(results.glob("*/*/result.json"))) == 4, "the points are stored"
        assert list(results.glob("*/report.html")), "and so are tables and report"


def test_a_locale_that_is_not_utf_8_changes_no_file(stored: Path, tmp_path: Path) -> None:
    """Files are UTF-8 whatever the terminal is."""
    made = []
    for at, environment in enumerate(({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})):
        results = tmp_path / str(at)
        done = shell(stored, f"mtpbench run tiny.yaml --simulate --results {results}", **environment)
        assert done.returncode == 0, done.stderr
        made.append((results / "tiny.simulated" / "comparison.md").read_text("utf-8"))
    assert made[0] == made[1]
    assert "×" in made[0]


def test_what_can_not_be_printed_is_exit_4_and_says_so(stored: Path) -> None:
    done = shell(stored, "mtpbench compare points.csv > /dev/full")
    assert done.returncode == 4
    assert done.stderr == b"error: standard output: No space left on device\n"


def test_a_sink_writes_all_until_the_first_error_and_keeps_that() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    assert sink.write(b"all of it") == 9
    assert os.read(reading, 99) == b"all of it"
    os.close(reading)
    assert sink.write(b"nobody") == 6
    assert isinstance(sink.error, BrokenPipeError)
    assert sink.write(b"reads this") == 10
    os.close(writing)


@given(
    text=st.text(max_size=60),
    width=st.integers(20, 300),
    encoding=st.sampled_from(["ascii", "latin-1", "utf-8"]),
)
@example(text="\x1b]0;title\x07[bold]:smile:[/]", width=20, encoding="utf-8")
@example(text="\x9b31m\u202eabc\ud800", width=80, encoding="ascii")
def test_no_text_steers_a_terminal_whatever_shows_it(text: str, width: int, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding, "replace")
    console = make_console(file=stream, width=width)
    table = Table(text)
    table.add_row(text)
    console.print(text)
    console.print(Text(text, style="bold"), table)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(text)
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert not set(printed) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))}
    assert not any(chr(code) in printed for code in range(0x202A, 0x202F))


def test_markup_in_a_name_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console(width=80)
    console.print("[red]name[/red] :smile:")
    assert capsys.readouterr().out == "[red]name[/red] :smile:\n"
