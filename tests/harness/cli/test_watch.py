"""`mtpbench watch`: frames that fit, in a pipe, in a terminal, beside a run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mtpbench.cli import main
from mtpbench.cli.run import summary
from mtpbench.cli.watch import Frame, View, lines_of
from mtpbench.cli.watch_lines import ago
from mtpbench.progress import RunProgress
from mtpbench.slurm.journal import Attempt, Finished, Submission
from mtpbench.slurm.states import AttemptFiles
from mtpbench.snapshot import Holder, SeenPoint, ServerStart, Snapshot
from stored_sweep import MTP, OFF, store_point, write_sweep

Call = Callable[..., tuple[int, str, str]]
PATIENCE_S = 60.0
"""How long a test waits for what must come; nothing is asserted of how fast it does."""


@pytest.fixture
def watch(cli: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `mtpbench watch` in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    return partial(cli, "watch")


def frame_of(directory: Path) -> Frame:
    frame = View(directory, Path("results")).look()
    assert isinstance(frame, Frame)
    return frame


def plain(frame: Frame, snapshot: Snapshot | None = None, size: tuple[int, int] = (110, 60)) -> list[str]:
    return [line.plain.rstrip() for line in lines_of(snapshot or frame.snapshot, frame.series, size)]


def test_one_frame_of_a_folder(watch: Call, tmp_path: Path) -> None:
    code, out, err = watch(write_sweep(tmp_path), "--once")
    assert (code, err) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].startswith("small  SIMULATED")
    assert lines[1] == "6 valid, 2 invalid (client_saturated 1, server_died 1), 1 missing of 9 points"
    assert lines[2] == "no run on this machine holds this folder; `mtpbench run` measures what is missing"
    assert any(line.startswith("● Off  3 of 4") for line in lines)
    assert any(re.match(r"c16 +90\.0 +1,200 0\.40 s 2\.50 valid", line) for line in lines)
    assert any("invalid: client_saturated" in line for line in lines)
    assert any("● Off (3)  ▲ MTP (3)  x invalid (1)" in line for line in lines)
    assert "tok/s/user" in out


def test_a_pipe_gets_one_frame_without_asking(watch: Call, tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    first, second = watch(directory)[1].splitlines(), watch(directory, "--once")[1].splitlines()
    assert first[1:3] == second[1:3]


def test_a_sweep_file_is_waited_for_and_its_simulation_found(
    watch: Call, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep()
    code, out, _ = watch(path)
    assert code == 0
    assert "waiting: no results in results/tiny" in out
    assert "results/tiny.simulated yet; 4 points are planned" in " ".join(out.split())
    monkeypatch.setattr(sys, "argv", ["mtpbench", "run", str(path), "--simulate"])
    with pytest.raises(SystemExit, match="0"):
        main()
    code, out, _ = watch(path)
    frame = out[out.index("tiny.simulated  SIMULATED") :]
    assert "4 valid, 0 invalid, 0 missing of 4 points" in frame
    assert "every planned point is measured" in frame


def test_a_folder_of_results_names_what_could_be_watched(watch: Call, tmp_path: Path) -> None:
    write_sweep(tmp_path)
    code, _, err = watch(tmp_path)
    assert code == 2
    assert "it holds small: watch one of them" in " ".join(err.split())


def test_a_folder_without_its_sweeps_file_says_so(watch: Call, tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / "sweep.json").unlink()
    code, out, err = watch(directory, "--once")
    assert (code, out) == (2, "")
    assert "no results here (sweep.json is missing); a folder results/<sweep> is needed" in " ".join(
        err.split()
    )
    assert "waiting" in str(View(directory, Path("results")).look()), "a copy may be under way"


def test_a_name_that_is_nothing_is_said(watch: Call, tmp_path: Path) -> None:
    code, out, err = watch(tmp_path / "demoo", "--once")
    assert (code, out) == (2, "")
    assert "demoo: there is no such folder, and no sweep file of that name" in " ".join(err.split())
    assert str(View(tmp_path / "demoo", Path("results")).look()).endswith("there is no such folder yet")


def test_a_damaged_point_says_why_before_where(watch: Call, tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    path = next(directory.glob("off*_c16_*/result.json"))
    path.write_text(path.read_text()[:40])
    code, out, _ = watch(directory, "--once")
    assert code == 0
    assert "damaged: not JSON (result.json)" in out
    assert str(tmp_path) not in out
    assert "damaged: not JSON (result.json), off c16" in out
    narrow = "\n".join(plain(frame_of(directory), size=(80, 60)))
    assert re.search(r"^c16 .* damaged *(│.*|\d.*)?$", narrow, re.MULTILINE)
    path.unlink()
    (path.parent / "result.json").mkdir()
    assert "damaged: Is a directory (result.json)" in watch(directory, "--once")[1]


@pytest.mark.parametrize(("name", "value"), [("interactivity_tps", -5), ("interactivity_tps", 1e400)])
def test_a_point_with_impossible_rates_is_not_called_valid(
    watch: Call, tmp_path: Path, name: str, value: float
) -> None:
    directory = write_sweep(tmp_path)
    path = next(directory.glob("off*_c16_*/result.json"))
    text = re.sub(rf'"{name}": [^,]+', f'"{name}": {"1e400" if value > 1 else value}', path.read_text())
    path.write_text(text)
    code, out, _ = watch(directory, "--once")
    assert code == 0
    if value > 1:
        assert "damaged" in out, "JSON has no such number"
        return
    assert "5 valid" in out
    assert "1 unusable" in out
    assert "unusable: interactivity_tps is -5: nothing serves that, off c16" in " ".join(out.split())


@pytest.mark.parametrize(
    ("names", "ascii_only"),
    [
        ({"LC_ALL": "C"}, True),
        ({"LC_ALL": "POSIX"}, True),
        ({"LANG": "C"}, True),
        ({"LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "C.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "en_US.UTF-8"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_in_the_c_locale_all_of_it_is_ascii(tmp_path: Path, names: dict[str, str], ascii_only: bool) -> None:
    environment = {
        n: v for n, v in os.environ.items() if not n.startswith("LC_") and n not in ("LANG", "PYTHONUTF8")
    }
    done = subprocess.run(
        [sys.executable, "-m", "mtpbench", "watch", str(write_sweep(tmp_path)), "--once"],
        env={**environment, **names, "COLUMNS": "110"},
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.isascii() == ascii_only
    assert b"valid" in done.stdout


def test_a_sweep_file_that_is_wrong_is_refused(watch: Call, tmp_path: Path) -> None:
    code, _, err = watch(tmp_path / "nothing.yaml")
    assert (code, "nothing.yaml" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        (json.dumps({"schema_version": 99}), "schema version 99"),
        ("[]", "no record of ours"),
    ],
)
def test_a_sweep_that_can_not_be_read_is_said(watch: Call, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    code, out, _ = watch(tmp_path)
    assert code == 0
    assert "nothing to show" in out
    assert message in " ".join(out.split())


def many(frame: Frame, points: int) -> Snapshot:
    """The frame's snapshot with a long ladder of Off, the first half of it measured."""
    stored = next(point for point in frame.snapshot.points if point.stored is not None)
    ladder = tuple(
        SeenPoint(
            planned=replace(stored.planned, id=f"p{i}", concurrency=i + 1),
            state="valid" if i < points // 2 else "missing",
            stored=stored.stored if i < points // 2 else None,
            landed_s=float(i) if i < points // 2 else None,
        )
        for i in range(points)
    )
    others = tuple(point for point in frame.snapshot.points if point.planned.arm == "mtp")
    return replace(frame.snapshot, points=(*ladder, *others))


def test_a_long_ladder_is_cut_around_what_landed_last(tmp_path: Path) -> None:
    frame = frame_of(write_sweep(tmp_path))
    lines = plain(frame, many(frame, 300), (110, 30))
    assert any("… 282 more (" in line or " more (" in line for line in lines)
    assert any(line.startswith("c150 ") for line in lines)
    assert any(line.startswith("c151 ") for line in lines), "the next one is shown too"
    assert not any(line.startswith(("c1 ", "c300 ")) and "Off" in line for line in lines)
    assert any(line.startswith("▲ MTP") for line in lines)


@pytest.mark.parametrize("points", [9, 300])
def test_a_frame_is_never_larger_than_its_terminal(tmp_path: Path, points: int) -> None:
    frame = frame_of(write_sweep(tmp_path))
    snapshot = frame.snapshot if points == 9 else many(frame, points)
    for columns in (1, 5, 20, 40, 60, 80, 99, 120, 250):
        for rows in (1, 2, 5, 10, 24, 40, 100):
            for ascii_only in (False, True):
                lines = lines_of(snapshot, frame.series, (columns, rows), ascii_only=ascii_only)
                assert len(lines) <= rows
                assert all(line.cell_len <= columns for line in lines)
                assert not ascii_only or all(line.plain.isascii() for line in lines)


@pytest.mark.parametrize("size", [(40, 24), (80, 24), (120, 40)])
def test_usual_terminals_show_what_matters(tmp_path: Path, size: tuple[int, int]) -> None:
    text = "\n".join(plain(frame_of(write_sweep(tmp_path)), size=size))
    assert "SIMULATED" in text
    assert "6 valid" in text
    assert "● Off" in text
    assert "▲ MTP" in text
    if size[0] >= 80:
        assert "● Off (3)  ▲ MTP (3)" in text


def test_a_run_at_work_says_what_follows_and_how_sure_that_is(tmp_path: Path) -> None:
    frame = frame_of(write_sweep(tmp_path))
    servers = ServerStart(
        key=store_point(OFF, 512).deployment_key,
        started_s=frame.snapshot.now_s - 30,
        grew_s=frame.snapshot.now_s - 2,
    )
    snapshot = replace(frame.snapshot, holder=Holder(held=True, pid=12), servers=servers)
    text = "\n".join(plain(frame, snapshot))
    assert "1 running, 0 missing" in text
    assert (
        "off on 1xTP8: servers started 30 s ago; next in its ladder, so most likely under load: c512" in text
    )
    again = replace(servers, key=replace(store_point(OFF, 512, repeat=1), launch=1).deployment_key)
    text_again = "\n".join(plain(frame, replace(snapshot, servers=again)))
    assert "off on 1xTP8: servers started for repeat 1 30 s ago" in text_again
    assert "servers' logs grew 2 s ago" in text
    assert "running?" in text
    idle = "\n".join(plain(frame, replace(snapshot, servers=None)))
    assert "run 12 at work: it has started no servers yet" in idle
    assert "whether a run holds" in "\n".join(plain(frame, replace(snapshot, holder=Holder(held=None))))


def live(snapshot: Snapshot, **changes: Any) -> RunProgress:
    """What a run said ten seconds ago."""
    progress = RunProgress(
        time_utc=datetime.fromtimestamp(snapshot.now_s - 10, UTC).isoformat(),
        host="other",
        pid=4711,
        point_id=store_point(OFF, 512).id,
        requests_ended=3,
        requests_total=9,
        output_tps=276.4,
        points_done=8,
        points_left=1,
    )
    return replace(progress, **changes)


def test_a_run_says_what_it_wrote_down_from_any_machine(tmp_path: Path) -> None:
    frame = frame_of(write_sweep(tmp_path))
    snapshot = replace(frame.snapshot, run=live(frame.snapshot))
    text = " ".join(plain(frame, snapshot))
    assert "run 4711 on other: off_1xTP8_c512_r0, 3 of 9 requests, 276 output tok/s; 8 done, 1 left" in text
    assert "1 running, 0 missing" in text
    assert re.search(r"c512 .* running ", text)
    assert "running?" not in text
    waiting = replace(snapshot, run=live(snapshot, point_id=None, stage="waiting for the servers"))
    text = " ".join(plain(frame, waiting))
    assert "run 4711 on other: waiting for the servers; 8 done, 1 left" in text
    assert waiting.running == {}


def test_a_killed_run_is_silent_since_then(tmp_path: Path) -> None:
    frame = frame_of(write_sweep(tmp_path))
    dead = replace(frame.snapshot, run=live(frame.snapshot), now_s=frame.snapshot.now_s + 600)
    then = datetime.fromtimestamp(frame.snapshot.now_s - 10)
    text = " ".join(plain(frame, dead))
    assert f"run 4711 on other is silent since {then:%H:%M:%S} (10 min ago), at off_1xTP8_c512_r0" in text
    assert "1 missing" in text
    assert not dead.at_work
    here = replace(frame.snapshot, run=live(frame.snapshot), run_here=True, holder=Holder(held=False))
    assert "is silent since" in " ".join(plain(frame, here)), "its lock is free, so it has ended"
    held = replace(dead, run_here=True, holder=Holder(held=True, pid=4711))
    assert "(last heard of 10 min ago)" in " ".join(plain(frame, held)), "it holds its lock, so it lives"


def test_jobs_say_what_they_wrote_down(tmp_path: Path) -> None:
    frame = frame_of(write_sweep(tmp_path))
    point = store_point(MTP, 128)
    attempt = Attempt(
        key=point.deployment_key,
        job_id="7",
        restart=0,
        host="n",
        pid=1,
        nodes=("n0",),
        started_utc="2026-11-24T10:00:00Z",
    )
    progress = RunProgress(
        time_utc="2026-11-24T10:01:00Z",
        point_id=point.id,
        requests_ended=3,
        requests_total=9,
        output_tps=276.4,
        points_done=2,
        points_left=1,
    )
    running = AttemptFiles(attempt=attempt, progress=progress, finished=None)
    snapshot = replace(frame.snapshot, jobs={point.deployment_key: running}, now_s=1_795_514_460.0 + 5)
    text = " ".join(plain(frame, snapshot))
    assert (
        "mtp_1xTP8: job 7 on n0: mtp_1xTP8_c128_r0, 3 of 9 requests, 276 output tok/s; 2 done, 1 left" in text
    )
    late = " ".join(plain(frame, replace(snapshot, now_s=snapshot.now_s + 600)))
    assert "last heard of 10 min ago" in late
    ended = Finished(
        outcome="failed", ended_utc="", points_valid=0, points_invalid=1, points_left=0, detail="no GPUs"
    )
    failed = {point.deployment_key: replace(running, finished=ended)}
    assert "job 7 failed: no GPUs" in " ".join(plain(frame, replace(snapshot, jobs=failed)))
    waiting = Submission(number=1, name="x", keys=("a", "b"), time_utc="", job_id="9")
    unheard = replace(frame.snapshot, submissions={"a": waiting, "b": waiting})
    assert "job 9 for 2 deployments: nothing heard of it yet" in " ".join(plain(frame, unheard))
    crowd = {f"k{i}_0": running for i in range(9)}
    assert "… 5 more jobs" in "\n".join(plain(frame, replace(snapshot, jobs=crowd)))


def test_times_are_short_and_a_clock_that_is_ahead_says_now() -> None:
    assert [ago(s) for s in (-5, 12, 600, 9000)] == ["0 s ago", "12 s ago", "10 min ago", "2.5 h ago"]


class Terminal:
    """`mtpbench watch` in a terminal of its own."""

    def __init__(self, arguments: list[str], size: tuple[int, int] = (80, 24)) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtpbench", "watch", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm-256color"},
        )
        os.close(slave)
        self.shown = ""

    def read_until(self, text: str | None) -> None:
        """Until the words have been shown; until its end for None."""
        deadline = time.monotonic() + PATIENCE_S
        while text is None or text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came; shown: {self.shown[-2000:]}"
            if not select.select([self.master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            if not data:
                assert text is None, f"it ended without {text!r}: {self.shown[-2000:]}"
                return
            self.shown += data.decode("utf-8", "replace")

    def end(self) -> int:
        """Its exit code."""
        self.read_until(None)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def test_a_run_is_watched_from_before_its_start_to_its_end(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    path, results = write_sweep(), tmp_path / "results"
    terminal = Terminal([str(path), "--results", str(results), "--interval", "0.2"])
    try:
        terminal.read_until("waiting")
        subprocess.run(
            [sys.executable, "-m", "mtpbench", "run", str(path), "--simulate", "--results", str(results)],
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        assert terminal.end() == 0
    finally:
        terminal.close()
    last = terminal.shown.rpartition("\x1b[?1049l")[2]
    assert "4 valid, 0 invalid, 0 missing of 4 points" in last
    assert "every planned point is measured" in last
    assert "SIMULATED" in last
    assert terminal.shown.count("\x1b[?1049h") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_it_quietly_and_gives_the_terminal_back(
    tmp_path: Path, number: int, code: int
) -> None:
    terminal = Terminal([str(write_sweep(tmp_path))])
    try:
        terminal.read_until("1 missing")
        terminal.process.send_signal(number)
        assert terminal.end() == code
    finally:
        terminal.close()
    last = terminal.shown.rpartition("\x1b[?1049l")
    assert last[1]
    assert not last[2].strip()
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.shown


def test_what_is_assumed_of_first_events_stands_wherever_the_figure_does(
    watch: Call, cli: Call, tmp_path: Path
) -> None:
    folder = write_sweep(tmp_path)
    for basis in ("known_first_chunk", "assumed_one_token"):
        for path in folder.glob("*/result.json"):
            result = json.loads(path.read_text("utf-8"))
            path.write_text(json.dumps({**result, "tpot_basis": basis}), "utf-8")
        said = [
            cli(*command)[1]
            for command in (("compare", folder), ("compare", folder, "--format", "md"), ("best", folder))
        ]
        assert cli("plot", folder, "-o", "plot.svg")[0] == 0
        said.append((tmp_path / "plot.svg").read_text("utf-8"))
        stored = [point.stored for point in frame_of(folder).snapshot.points if point.stored is not None]
        said += [text for one in stored if (text := summary(one.point, one.result)) != "no figures"]
        assert len(said) > 8
        assert {basis in text for text in said} == {basis == "assumed_one_token"}
        assert ("≤90.0" in watch(folder, "--once")[1]) is (basis == "assumed_one_token")
