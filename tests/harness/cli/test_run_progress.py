"""A run says what it is doing in progress.json, and never fails because of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mtpbench.cli import main
from mtpbench.cli.run import RunView
from mtpbench.errors import StoreError
from mtpbench.load.client import LoadProgress
from mtpbench.progress import (
    PROGRESS_FILE,
    Observer,
    PointCounts,
    ProgressObserver,
    ProgressWriter,
    RunProgress,
)
from mtpbench.progress import read_progress as read_file
from mtpbench.records import Deployment
from stored_sweep import OFF, store_point, store_result

POINT = store_point(OFF, 16)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def load(ended: int) -> LoadProgress:
    return LoadProgress(ended=ended, failed=0, total=9, in_flight=4, output_tokens=1000, elapsed_s=4.0)


def read_progress(directory: Path) -> RunProgress:
    return read_file(directory / PROGRESS_FILE)


@contextlib.contextmanager
def written_run(directory: Path, counts: PointCounts, inner: Observer) -> Iterator[ProgressObserver]:
    """What `mtpbench run` does around its points."""
    with ProgressWriter(directory / PROGRESS_FILE) as writer:
        observer = ProgressObserver(writer, counts, inner)
        observer.beat()
        yield observer


class Shown(RunView):
    """A run's display that is looked at."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200), 2)


def test_it_says_what_it_is_doing_and_nothing_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mtpbench.progress.time.monotonic", lambda: now[0])
    view = Shown()
    with written_run(tmp_path, PointCounts(total=3, valid=1), view) as run:
        first = read_progress(tmp_path)
        assert (first.stage, first.points_done, first.points_left) == ("starting", 1, 2)
        assert (first.host, first.pid) == (socket.gethostname(), os.getpid())
        run.point_started(POINT)
        assert read_progress(tmp_path).point_id == POINT.id
        run.point_progress(POINT, load(3))
        assert read_progress(tmp_path).requests_ended == 0, "once a second is often enough"
        now[0] += 1.5
        run.point_progress(POINT, load(5))
        progress = read_progress(tmp_path)
        assert (progress.requests_ended, progress.requests_total, progress.output_tps) == (5, 9, 250.0)
        assert progress.elapsed_s == 1.5
        run.point_finished(POINT, store_result(POINT, 60.0, 800.0))
        after = read_progress(tmp_path)
        assert (after.point_id, after.stage, after.points_done) == (None, "between points", 2)
    assert not list(tmp_path.iterdir())
    assert "off 1xTP8 c16: 800" in view.text.getvalue(), "the display is told the same"


def test_the_virtual_clock_has_no_servers_to_wait_for(tmp_path: Path) -> None:
    with written_run(tmp_path, PointCounts(total=1, valid=0), Shown()) as run:
        run.ladder_started(None, [POINT])
        assert read_progress(tmp_path).stage == "simulating"


def test_a_full_disk_is_said_once_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("progress.json: can't be written (No space left on device)")

    monkeypatch.setattr(ProgressWriter, "write", refuse)
    view = Shown()
    with written_run(tmp_path, PointCounts(total=1, valid=0), view) as run:
        for _ in range(3):
            run.point_started(POINT)
            run.beat()
    assert view.text.getvalue().count("No space left on device") == 1


def test_it_is_removed_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), written_run(tmp_path, PointCounts(total=1, valid=0), Shown()):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_whole_run_writes_it_and_leaves_none(
    write_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records: list[dict[str, object]] = []
    real = RunView.ladder_started

    def looking(self: RunView, deployment: Deployment | None, ladder: Sequence[object]) -> None:
        records.append(json.loads(Path("results/tiny.simulated/progress.json").read_text()))
        real(self, deployment, ladder)  # type: ignore[arg-type]

    monkeypatch.setattr(RunView, "ladder_started", looking)
    monkeypatch.setattr(sys, "argv", ["mtpbench", "run", str(write_sweep()), "--simulate"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert [(record["stage"], record["points_left"]) for record in records] == [("simulating", 4)]
    assert not Path("results/tiny.simulated/progress.json").exists()


@pytest.mark.parametrize("columns", [40, 60, 70, 80, 100, 160])
def test_a_status_of_any_width_cuts_no_figure(
    simulated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.chdir(simulated.parent)

    def call(*arguments: str, width: int = 200) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["mtpbench", *arguments])
        with pytest.raises(SystemExit, match="0"):
            main()
        return capsys.readouterr().out

    path = str(simulated)
    narrow, wide = (Counter(NUMBER.findall(call("status", path, width=width))) for width in (columns, 1000))
    assert narrow
    assert narrow == wide


def test_the_file_of_an_attempt_that_an_older_version_wrote_is_read(tmp_path: Path) -> None:
    """Slurm attempts named neither their host nor a schema version, runs did."""
    old = {
        "time_utc": "2026-11-24T10:00:00.000+00:00",
        "point_id": "p",
        "requests_ended": 3,
        "requests_total": 9,
        "output_tps": 250.0,
        "points_done": 1,
        "points_left": 2,
        "stage": None,
    }
    (tmp_path / PROGRESS_FILE).write_text(json.dumps(old))
    progress = read_progress(tmp_path)
    assert (progress.point_id, progress.requests_ended, progress.host) == ("p", 3, None)
    of_a_run = {**old, "schema_version": 4, "host": "h", "pid": 7, "elapsed_s": 1.0, "simulated": True}
    (tmp_path / PROGRESS_FILE).write_text(json.dumps(of_a_run))
    assert (read_progress(tmp_path).host, read_progress(tmp_path).simulated) == ("h", True)
