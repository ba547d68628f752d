"""Points are written whole or not at all, and read back as they were."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from mtpbench.errors import InputError, RunError, SchemaError, StoreError
from mtpbench.metrics.request_table import RequestTable
from mtpbench.provenance import Started, collect
from mtpbench.records import (
    ClientHealth,
    CounterSample,
    Load,
    Point,
    PointResult,
    PowerSample,
    RequestRecord,
    RunFacts,
    SpecCounters,
    SweepInfo,
)
from mtpbench.run import measure, recompute
from mtpbench.store import RawPoint, SweepStore, exclusive, read_point, read_raw, read_sweep, replace_file
from mtpbench.sweep import Sweep, load_sweep


@pytest.fixture
def sweep(write_sweep) -> Sweep:
    return load_sweep(write_sweep())


def store_at(root: Path, info: SweepInfo) -> SweepStore:
    store = SweepStore(root, info)
    store.open()
    return store


def raw_point(requests: int = 8) -> RawPoint:
    records = [
        RequestRecord(
            index=i,
            slot=0,
            warmup=i < 2,
            scheduled_s=float(i),
            sent_s=i + 0.001,
            end_s=i + 0.9,
            chunk_times_s=(i + 0.2, i + 0.5, i + 0.9),
            chunk_tokens=(1, 16, 32) if i % 2 else None,
            asked_prompt_tokens=64,
            asked_output_tokens=32,
            prompt_tokens=64,
            output_tokens=None if i == 3 else 32,
            cached_prompt_tokens=16 if i == 1 else None,
            reasoning_tokens=8 if i == 2 else None,
            finish_reason="length",
            error="no_usage" if i == 3 else None,
        )
        for i in range(requests)
    ]
    counters = SpecCounters(
        drafts=10.0, draft_tokens=30.0, accepted_tokens=15.0, per_position=(8.0, 5.0, 2.0)
    )
    return RawPoint(
        requests=RequestTable.from_records(records),
        counters=(
            CounterSample(time_s=0.0, process="decode-0", counters=counters),
            CounterSample(time_s=1.0, process="decode-0", counters=None, reason="timeout"),
        ),
        power=(PowerSample(time_s=0.5, process="decode-0", gpu=0, power_w=700.0, energy_j=None),),
        client=ClientHealth(),
        facts=RunFacts(notes=("a note",)),
    )


def write(store: SweepStore, point: Point, raw: RawPoint | None = None) -> Path:
    raw = raw or raw_point()
    result = measure(point, raw)
    provenance = collect(point, Started(executor="test"), "2026-01-01T00:00:00", "2026-01-01T00:01:00")
    return store.write(point, result, provenance, raw, {"decode-0": b"hello\n"})


def test_a_point_comes_back_as_it_was(tmp_path: Path, sweep: Sweep) -> None:
    point, raw = sweep.points[0], raw_point()
    directory = write(store_at(tmp_path, sweep.info), point, raw)
    assert read_point(directory).point == point
    again = read_raw(directory)
    assert (again.counters, again.power, again.facts) == (raw.counters, raw.power, raw.facts)
    for field in dataclasses.fields(RequestTable):
        found = getattr(again.requests.unpacked(), field.name)
        np.testing.assert_array_equal(found, getattr(raw.requests, field.name))
    assert list(again.requests.records()) == list(raw.requests.records())
    assert (directory / "logs" / "decode-0.log").read_bytes() == b"hello\n"


def test_summarised_chunks_keep_the_first_and_the_last(tmp_path: Path, sweep: Sweep) -> None:
    table = raw_point().requests
    short = table.summarised()
    assert short.chunk_counts.max() == 2
    np.testing.assert_array_equal(short.first_chunk_s, table.first_chunk_s)
    np.testing.assert_array_equal(short.last_chunk_s, table.last_chunk_s)
    point = dataclasses.replace(sweep.points[0], load=Load(chunks="summarised"))
    directory = write(store_at(tmp_path, sweep.info), point)
    with pytest.raises(InputError, match="stored summarised, so its result can't be computed again"):
        recompute(directory)


def test_an_empty_point_can_be_stored(tmp_path: Path, sweep: Sweep) -> None:
    empty = RawPoint(
        requests=RequestTable.from_records([]),
        counters=(),
        power=(),
        client=ClientHealth(),
        facts=RunFacts(start_failed="it died"),
    )
    directory = write(store_at(tmp_path, sweep.info), sweep.points[0], empty)
    assert len(read_raw(directory).requests) == 0
    assert [reason.code for reason in read_point(directory).result.reasons] == ["start_failed"]


def test_a_sweep_knows_what_is_missing(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    write(store, sweep.points[1])
    stored = read_sweep(store.directory)
    assert [p.point.id for p in stored.points] == [sweep.points[1].id]
    assert set(stored.missing) == set(sweep.info.planned) - {sweep.points[1].id}
    assert store.state(sweep.points[0].id) == "missing"
    assert store.state(sweep.points[1].id) == "invalid"


def test_recomputing_from_raw_records_changes_nothing_and_repairs_a_result(
    tmp_path: Path, sweep: Sweep
) -> None:
    directory = write(store_at(tmp_path, sweep.info), sweep.points[0])
    before, after = recompute(directory)
    assert before == after
    text = (directory / "result.json").read_text()
    (directory / "result.json").write_text(text.replace('"failed_requests": 1', '"failed_requests": 0'))
    before, after = recompute(directory)
    assert (before.failed_requests, after.failed_requests) == (0, 1)
    assert read_point(directory).result == after


def test_a_result_is_recomputed_into_the_attempt_that_it_is_of(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run measures the point again while it is recomputed, which takes seconds for a large one."""
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])
    text = (directory / "result.json").read_text()
    (directory / "result.json").write_text(text.replace('"failed_requests": 1', '"failed_requests": 0'))

    def measure_slowly(point: Point, raw: RawPoint) -> PointResult:
        write(store, sweep.points[0], raw_point(9))
        return measure(point, raw)

    monkeypatch.setattr("mtpbench.run.measure", measure_slowly)
    _, old = recompute(directory)
    newer = read_point(directory).result
    monkeypatch.undo()
    assert recompute(directory) == (newer, newer) != (old, old)
    (older,) = (store.directory / ".superseded").iterdir()
    assert read_point(older).result == old


@pytest.mark.parametrize("limit", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_a_limit_of_the_machine_damages_no_point(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, limit: Exception
) -> None:
    """A point that is called damaged would be measured again."""
    store = store_at(tmp_path, sweep.info)
    write(store, sweep.points[0])

    def refuse(*_: object, **__: object) -> None:
        raise limit

    monkeypatch.setattr("mtpbench.store.files.os.open", refuse)
    with pytest.raises(type(limit)):
        store.state(sweep.points[0].id)
    with pytest.raises(type(limit)):
        read_sweep(store.directory)


def test_files_of_two_attempts_are_no_point(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])

    def read_late(place: Path) -> RawPoint:
        write(store, sweep.points[0], raw_point(9))
        return read_raw(place)

    monkeypatch.setattr("mtpbench.store.writing.read_raw", read_late)
    with pytest.raises(RunError, match="a run has just measured it again"):
        recompute(directory)


def test_a_newer_attempt_takes_the_place_and_the_older_one_is_kept(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    write(store, sweep.points[0], raw_point(6))
    directory = write(store, sweep.points[0], raw_point(9))
    assert len(read_raw(directory).requests) == 9
    (older,) = (store.directory / ".superseded").iterdir()
    assert len(read_raw(older).requests) == 6


def test_a_kill_between_the_two_renames_is_put_back(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])
    directory.rename(store.directory / ".superseded" / f"{directory.name}~0000.replacing")
    assert read_sweep(store.directory).points == ()
    store.open()
    assert [p.point.id for p in read_sweep(store.directory).points] == [sweep.points[0].id]


def test_a_deleted_point_does_not_come_back(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    write(store, sweep.points[0], raw_point(6))
    shutil.rmtree(write(store, sweep.points[0], raw_point(9)))
    store.open()
    assert store.state(sweep.points[0].id) == "missing"


def test_superseded_attempts_never_collide(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    for requests in (6, 7, 8):
        write(store, sweep.points[0], raw_point(requests))
    folder = store.directory / ".superseded"
    shutil.rmtree(min(folder.iterdir()))
    directory = write(store, sweep.points[0], raw_point(9))
    assert len(read_raw(directory).requests) == 9
    assert sorted(len(read_raw(path).requests) for path in folder.iterdir()) == [7, 8]


def test_a_valid_point_is_not_replaced_by_a_newer_invalid_one(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0], raw_point(6))
    text = (directory / "result.json").read_text()
    result = json.loads(text)
    (directory / "result.json").write_text(json.dumps({**result, "reasons": []}))
    write(store, sweep.points[0], raw_point(9))
    assert store.state(sweep.points[0].id) == "valid"
    assert len(read_raw(directory).requests) == 6
    assert [len(read_raw(path).requests) for path in (store.directory / ".superseded").iterdir()] == [9]


def test_stray_files_among_the_attempts_are_left_alone(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    stray = store.directory / ".attempts" / ".DS_Store"
    stray.write_text("")
    store.open()
    assert stray.exists()


def test_attempts_of_dead_writers_are_removed_and_those_of_living_ones_stay(
    tmp_path: Path, sweep: Sweep
) -> None:
    store = store_at(tmp_path, sweep.info)
    dead = subprocess.Popen((sys.executable, "-c", ""))
    dead.wait()
    host = os.uname().nodename
    for pid in (dead.pid, os.getpid()):
        (store.directory / ".attempts" / f"x@{host}@{pid}").mkdir()
    store.open()
    left = [path.name for path in (store.directory / ".attempts").iterdir()]
    assert left == [f"x@{host}@{os.getpid()}"]


def test_a_writer_killed_at_any_moment_leaves_whole_points_only(tmp_path: Path, write_sweep) -> None:
    """A process writes points for ever and is killed with SIGKILL; every point that is there is whole."""
    program = textwrap.dedent(
        """
        import dataclasses, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        import test_store
        from mtpbench.sweep import load_sweep
        sweep = load_sweep(Path(sys.argv[1]))
        store = test_store.store_at(Path(sys.argv[2]), sweep.info)
        raw = test_store.raw_point(40)
        print("ready", flush=True)
        while True:
            for point in sweep.points:
                test_store.write(store, point, raw)
        """
    )
    path = write_sweep()
    info = load_sweep(path).info
    for delay_s in (0.01, 0.05, 0.12):
        root = tmp_path / f"results{delay_s}"
        child = subprocess.Popen(
            (sys.executable, "-c", program, str(path), str(root), str(Path(__file__).parent)),
            stdout=subprocess.PIPE,
        )
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        store = store_at(root, info)
        stored = read_sweep(store.directory)
        assert len(stored.points) + len(stored.missing) == len(info.planned)
        for point in stored.points:
            assert len(read_raw(point.directory).requests) == 40
        assert list((store.directory / ".attempts").iterdir()) == []


def test_an_unknown_schema_is_refused(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])
    result = json.loads((directory / "result.json").read_text())
    (directory / "result.json").write_text(json.dumps({**result, "schema_version": 99}))
    with pytest.raises(
        SchemaError,
        match=r"result.json: written under schema version 99; .* 3, 4, 5, 6, 7, 8 and 9\.",
    ):
        read_sweep(store.directory)


def test_damaged_files_are_named(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])
    (directory / "requests.parquet").write_bytes(b"not parquet")
    with pytest.raises(StoreError, match=r"requests.parquet: can't be read"):
        read_raw(directory)
    (directory / "point.json").write_text("{")
    with pytest.raises(StoreError, match=r"point.json:1: not JSON"):
        read_point(directory)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b'{"schema_version": 3}'])
def test_a_damaged_point_costs_only_itself(tmp_path: Path, sweep: Sweep, content: bytes) -> None:
    store = store_at(tmp_path, sweep.info)
    write(store, sweep.points[1])
    directory = write(store, sweep.points[0])
    (directory / "result.json").write_bytes(content)
    stored = read_sweep(store.directory)
    assert [p.point.id for p in stored.points] == [sweep.points[1].id]
    assert list(stored.damaged) == [sweep.points[0].id]
    assert store.state(sweep.points[0].id) == "damaged"
    write(store, sweep.points[0], raw_point(9))
    assert len(read_sweep(store.directory).points) == 2


def test_a_sweep_of_another_schema_is_not_overwritten(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    path = store.directory / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(SchemaError, match=r"sweep\.json: written under schema version 99"):
        store.open()
    path.write_text("{")
    store.open()
    assert read_sweep(store.directory).info == sweep.info


def test_a_folder_that_can_not_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"), exclusive(tmp_path / "file" / "results"):
        pass


def test_a_folder_without_results_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results here \(sweep.json is missing\)"):
        read_sweep(tmp_path)


def test_two_runs_of_one_sweep_are_refused(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(StoreError, match=f"another run is writing here .process {os.getpid()}"),
        exclusive(tmp_path),
    ):
        pass


def test_a_file_that_can_not_be_replaced_stays_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"folder: can't be written"):
        replace_file(path, "text")
    assert [child.name for child in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(StoreError, match=r"missing/file: can't be written"):
        replace_file(tmp_path / "missing" / "file", "text")
    replace_file(tmp_path / "made" / "file", b"\x00", parents=True)
    replace_file(tmp_path / "made" / "file", "é", sync=False)
    assert (tmp_path / "made" / "file").read_text("utf-8") == "é"
