"""What a watcher reads of a results folder: what changed, once; everything broken as what it is."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import mtpbench.watch.files as files
from mtpbench.progress import PROGRESS_FILE, ProgressWriter, RunProgress
from mtpbench.records import ClientHealth, Reason, RunFacts, SweepInfo
from mtpbench.requests import RequestTable
from mtpbench.slurm.journal import Attempt, Finished, Journal, Submission
from mtpbench.store import RawPoint, SweepStore, exclusive
from mtpbench.store.reading import read_record
from mtpbench.watch.files import ALL_EVERY, SweepFiles
from mtpbench.watch.left import find_left
from mtpbench.watch.picture import Picture, Planned, ServerStart, next_of_ladder
from stored_sweep import MTP, OFF, provenance, store_point, store_result, write_sweep

RAW = RawPoint(
    requests=RequestTable.from_records([]), counters=(), power=(), client=ClientHealth(), facts=RunFacts()
)


def store_of(directory: Path) -> SweepStore:
    return SweepStore(directory.parent, read_record(SweepInfo, directory / "sweep.json"))


def writer_of(directory: Path) -> ProgressWriter:
    return ProgressWriter(directory / PROGRESS_FILE)


def land(directory: Path, *, tput: float = 900.0, concurrency: int = 512) -> Path:
    point = store_point(OFF, concurrency)
    return store_of(directory).write(point, store_result(point, 9.0, tput), provenance(), RAW, {})


def states(picture: Picture | None) -> dict[str, str]:
    assert picture is not None
    return {f"{one.planned.arm} c{one.planned.concurrency}": one.state for one in picture.points}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each point was read."""
    counted: Counter[str] = Counter()
    real = files.read_point

    def counting(place: Path) -> object:
        counted[place.name] += 1
        return real(place)

    monkeypatch.setattr(files, "read_point", counting)
    return counted


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    watched = SweepFiles(tmp_path / "small")
    assert watched.look() is None
    write_sweep(tmp_path)
    assert Counter(states(watched.look()).values()) == {"valid": 6, "invalid": 2, "missing": 1}


def test_a_point_that_lands_is_seen_and_the_others_are_not_read_again(
    tmp_path: Path, reads: Counter[str]
) -> None:
    directory = write_sweep(tmp_path)
    watched = SweepFiles(directory)
    for _ in range(2 * ALL_EVERY):
        assert states(watched.look())["off c512"] == "missing"
    assert set(reads.values()) == {1}
    landed = land(directory)
    assert states(watched.look())["off c512"] == "valid"
    assert reads[landed.name] == 1
    assert set(reads.values()) == {1}
    assert len(reads) == 9


def test_a_quiet_folder_is_not_even_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = SweepFiles(write_sweep(tmp_path))
    for _ in range(3):
        watched.look()
    looked: list[Path] = []
    real = files.signature
    monkeypatch.setattr(files, "signature", lambda path: looked.append(path) or real(path))  # type: ignore[func-returns-value]
    watched.look()
    assert not [path for path in looked if path.name == "result.json"]


def test_a_replaced_point_is_read_anew(tmp_path: Path, reads: Counter[str]) -> None:
    directory = write_sweep(tmp_path)
    watched = SweepFiles(directory)
    for _ in range(4):
        watched.look()
    place = land(directory, tput=123.0, concurrency=16)
    picture = watched.look()
    assert picture is not None
    (seen,) = [one for one in picture.points if one.planned.id == place.name]
    assert seen.stored is not None
    assert seen.stored.result.steady is not None
    assert seen.stored.result.steady.tput_tps_per_gpu == 123.0
    assert reads[place.name] == 2


def test_a_result_rewritten_in_its_place_is_found_after_a_while(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SweepFiles(directory)
    for _ in range(4):
        watched.look()
    path = next(directory.glob("off*_c16_*/result.json"))
    data = json.loads(path.read_text())
    beside = path.with_name("new")
    beside.write_text(json.dumps({**data, "reasons": [{"code": "zero_acceptance", "detail": "x"}]}))
    beside.rename(path)
    seen = [states(watched.look())["off c16"] for _ in range(ALL_EVERY)]
    assert (seen[0], seen[-1]) == ("valid", "invalid")


def test_what_is_broken_is_shown_as_what_it_is_and_mends(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    found = {n: next(directory.glob(f"off*_c{n}_*")) for n in (1, 16, 64)}
    whole = (found[1] / "point.json").read_text()
    (found[1] / "point.json").write_text(whole[:40])
    result = json.loads((found[16] / "result.json").read_text())
    (found[16] / "result.json").write_text(json.dumps({**result, "schema_version": 99}))
    (found[64] / "result.json").unlink()
    watched = SweepFiles(directory)
    broken = {"off c1": "damaged", "off c16": "other schema", "off c64": "incomplete"}
    for _ in range(4):
        picture = watched.look()
        assert {name: states(picture)[name] for name in broken} == broken
    assert picture is not None
    details = {f"c{one.planned.concurrency}": one.detail for one in picture.having("damaged", "other schema")}
    assert "not JSON" in details["c1"]
    assert "schema version 99" in details["c16"]
    (found[1] / "point.json").write_text(whole)
    shutil.rmtree(found[64])
    picture = watched.look()
    assert (states(picture)["off c1"], states(picture)["off c64"]) == ("valid", "missing")


def test_nothing_in_the_folder_is_touched(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)

    def snapshot() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
            for path in (directory, *directory.rglob("*"))
        }

    before = snapshot()
    watched = SweepFiles(directory)
    for _ in range(5):
        watched.look()
    assert snapshot() == before
    assert not (directory / ".lock").exists()


def test_the_lock_is_seen_and_never_taken(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SweepFiles(directory)
    free = watched.look()
    assert free is not None
    if not files._LOCKS.exists():
        pytest.skip("this system has no /proc/locks")
    with exclusive(directory):
        held = watched.look()
        assert held is not None
        assert (held.holder.held, held.holder.pid) == (True, os.getpid())
    after = watched.look()
    assert after is not None
    assert (free.holder.held, after.holder.held) == (False, False)
    with exclusive(directory):
        pass


def test_a_lock_that_nobody_can_ask_about_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LOCKS", tmp_path / "nothing")
    (tmp_path / ".lock").write_text("12")
    assert files.holder_of(tmp_path / ".lock").held is None


def test_the_ids_parts_are_read_from_its_end() -> None:
    planned = Planned.of("mtp_k3_6xDEP8-1xDEP16_c16384_q2.5_r1_0123abcd")
    assert (planned.arm, planned.topology, planned.concurrency) == ("mtp_k3", "6xDEP8-1xDEP16", 16384)
    assert planned.words == "c16384 q2.5 repeat 1"
    assert Planned.of("else").arm == "else"
    for point in (store_point(OFF, 16), store_point(MTP, 4, repeat=2)):
        parts = Planned.of(point.id)
        assert (parts.arm, parts.topology) == (point.arm.name, point.topology.name)
        assert (parts.concurrency, parts.repeat) == (point.concurrency, point.repeat)


def test_the_newest_servers_of_this_run_tell_the_ladder_and_the_next_point(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    key = store_point(OFF, 512).deployment_key
    for name in ("mtp_1xTP8_00000000@20200101T000000.000000", f"{key}@20990101T000000.500000", "rubbish"):
        (directory / "servers" / name).mkdir(parents=True)
    picture = SweepFiles(directory).look()
    assert picture is not None
    assert picture.servers is not None
    assert picture.servers.key == key
    found = next_of_ladder(picture.points, picture.servers)
    assert found is not None
    assert found.planned.words == "c512"
    assert picture.running == {}, "nobody holds the lock, so nothing is known to run"
    for old in (directory / "servers").glob("*2099*"):
        shutil.rmtree(old)
    again = SweepFiles(directory).look()
    assert again is not None
    assert again.servers is None, "servers that are older than this run are not its own"


def test_a_ladder_goes_up_and_leaves_out_what_is_valid(tmp_path: Path) -> None:
    picture = SweepFiles(write_sweep(tmp_path)).look()
    assert picture is not None
    servers = ServerStart(key=store_point(MTP, 1).deployment_key, started_s=0.0, grew_s=0.0)
    assert next_of_ladder(picture.points, servers) is None, "its invalid points landed after the start"
    later = replace(servers, started_s=picture.now_s + 10)
    found = next_of_ladder(picture.points, later)
    assert found is not None
    assert found.planned.words == "c128"


def test_a_runs_own_file_is_read_and_does_not_stir_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_sweep(tmp_path)
    said = RunProgress(
        time_utc="2026-11-24T10:01:00+00:00", host="n0", pid=7, point_id=store_point(OFF, 512).id
    )
    watched = SweepFiles(directory, clock=lambda: 1_795_514_460.0 + 30)
    for i in range(4):
        writer_of(directory).write(replace(said, requests_ended=i))
        picture = watched.look()
    assert picture is not None
    assert picture.run is not None
    assert (picture.run.requests_ended, picture.run_here) == (3, False)
    assert picture.running == {said.point_id: True}
    assert picture.at_work
    looked: list[Path] = []
    real = files.signature
    monkeypatch.setattr(files, "signature", lambda path: looked.append(path) or real(path))  # type: ignore[func-returns-value]
    writer_of(directory).write(replace(said, requests_ended=9))
    picture = watched.look()
    assert not [path for path in looked if path.name == "result.json"]
    assert picture is not None
    assert picture.run is not None
    assert picture.run.requests_ended == 9
    monkeypatch.undo()
    land(directory, tput=123.0, concurrency=16)
    writer_of(directory).write(said)
    again = watched.look()
    assert again is not None
    tputs = [
        one.stored.result.steady.tput_tps_per_gpu
        for one in again.points
        if one.stored and one.stored.result.steady
    ]
    assert 123.0 in tputs, "a point that is replaced meanwhile is seen"
    (directory / PROGRESS_FILE).unlink()
    gone = watched.look()
    assert gone is not None
    assert gone.run is None
    (directory / "progress.json").write_text("{")
    torn = watched.look()
    assert torn is not None
    assert torn.run is None
    assert "progress.json" in torn.trouble[0]


def test_a_run_says_that_it_is_simulated_before_a_point_landed(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    for point in [child for child in directory.iterdir() if child.is_dir()]:
        shutil.rmtree(point)
    said = RunProgress(time_utc="2026-11-24T10:00:00+00:00", host="h", pid=1, stage="starting")
    for simulated in (None, False, True):
        writer_of(directory).write(replace(said, simulated=simulated))
        picture = SweepFiles(directory).look()
        assert picture is not None
        assert picture.simulated is bool(simulated)


def test_slurms_own_files_tell_what_a_job_measures(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    journal = Journal(directory)
    point = store_point(OFF, 512)
    key, other = point.deployment_key, store_point(MTP, 1).deployment_key
    attempt = Attempt(
        key=key, job_id="7_0", restart=0, host="n0", pid=1, nodes=("n0",), started_utc="2026-11-24T10:00:00Z"
    )
    journal.write_submission(
        Submission(number=1, name="j", keys=(key, other), time_utc="2026-11-24T09:59:00Z", job_id="7")
    )
    journal.take_over(attempt)
    progress = RunProgress(time_utc="2026-11-24T10:01:00Z", point_id=point.id, requests_total=9)
    ProgressWriter(journal.progress_path(attempt)).write(progress)
    clock_s = 1_795_514_460.0 + 30
    watched = SweepFiles(directory, clock=lambda: clock_s)
    picture = watched.look()
    assert picture is not None
    assert picture.running == {point.id: True}
    assert picture.at_work
    assert [one.number for one in picture.unheard] == [1], "the other deployment of the array has not begun"
    clock_s += 3600
    stale = watched.look()
    assert stale is not None
    assert not stale.at_work
    journal.write_finished(
        attempt,
        Finished(outcome="done", ended_utc="", points_valid=1, points_invalid=0, points_left=0),
    )
    clock_s -= 3600
    ended = watched.look()
    assert ended is not None
    assert not ended.at_work
    (journal.root / "current" / f"{key}.json").write_text("{")
    damaged = watched.look()
    assert damaged is not None
    assert "not JSON" in damaged.trouble[0]


def test_what_is_left_rests_on_the_same_concurrency_alone(tmp_path: Path) -> None:
    planned = tuple(store_point(arm, c).id for arm in (OFF, MTP) for c in (1, 16, 64))
    directory = write_sweep(tmp_path, planned=planned)
    for path in directory.glob("*/result.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "clock": "real"}))
    shutil.rmtree(directory / store_point(MTP, 16).id)
    for arm in (OFF, MTP):
        shutil.rmtree(directory / store_point(arm, 64).id)
    picture = SweepFiles(directory).look()
    assert picture is not None
    left = find_left(picture)
    assert left is not None
    assert (left.seconds, left.points, left.unknown) == (60.0, 1, 2)


def test_a_virtual_clock_gives_no_estimate(tmp_path: Path) -> None:
    picture = SweepFiles(write_sweep(tmp_path)).look()
    assert picture is not None
    assert find_left(picture) is None


def test_it_is_over_when_all_is_measured_and_nothing_goes_on(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SweepFiles(directory)
    first = watched.look()
    assert first is not None
    assert not first.over
    point = store_point(OFF, 512)
    died = (Reason(code="server_died", detail="exit code 1"),)
    store_of(directory).write(point, store_result(point, 1.0, 1.0, reasons=died), provenance(), RAW, {})
    last = watched.look()
    assert last is not None
    assert last.over, "an invalid point is measured too"
