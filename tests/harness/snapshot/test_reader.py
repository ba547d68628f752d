"""What a watcher reads of a results folder: what changed, once; everything broken as what it is."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mtpbench.cli.status import _is_busy
from mtpbench.metrics.request_table import RequestTable
from mtpbench.progress import PROGRESS_FILE, ProgressWriter, RunProgress
from mtpbench.records import ClientHealth, Reason, RunFacts, SweepInfo
from mtpbench.slurm.client import QueryResult, Slurm
from mtpbench.slurm.journal import Attempt, Finished, Journal, Submission
from mtpbench.slurm.states import JobStatus
from mtpbench.slurm.submission import job_name
from mtpbench.snapshot import PlannedPoint, ServerStart, Snapshot, next_of_ladder, time_left
from mtpbench.snapshot import reader as files
from mtpbench.snapshot.reader import ALL_EVERY, SnapshotReader
from mtpbench.store import RawPoint, SweepStore, exclusive
from mtpbench.store.reading import read_record
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


def states(snapshot: Snapshot | None) -> dict[str, str]:
    assert snapshot is not None
    return {f"{point.planned.arm} c{point.planned.concurrency}": point.state for point in snapshot.points}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each point was read."""
    counted: Counter[str] = Counter()
    real = files.read_place

    def counting(place: Path) -> object:
        counted[place.name] += 1
        return real(place)

    monkeypatch.setattr(files, "read_place", counting)
    return counted


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    watched = SnapshotReader(tmp_path / "small")
    assert watched.read() is None
    write_sweep(tmp_path)
    assert Counter(states(watched.read()).values()) == {"valid": 6, "invalid": 2, "missing": 1}


def test_a_point_that_lands_is_seen_and_the_others_are_not_read_again(
    tmp_path: Path, reads: Counter[str]
) -> None:
    directory = write_sweep(tmp_path)
    watched = SnapshotReader(directory)
    for _ in range(2 * ALL_EVERY):
        assert states(watched.read())["off c512"] == "missing"
    assert set(reads.values()) == {1}
    landed = land(directory)
    assert states(watched.read())["off c512"] == "valid"
    assert reads[landed.name] == 1
    assert set(reads.values()) == {1}
    assert len(reads) == 9


def test_a_quiet_folder_is_not_even_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = SnapshotReader(write_sweep(tmp_path))
    for _ in range(3):
        watched.read()
    looked: list[Path] = []
    real = files.signature
    monkeypatch.setattr(files, "signature", lambda path: looked.append(path) or real(path))  # type: ignore[func-returns-value]
    watched.read()
    assert not [path for path in looked if path.name == "result.json"]


def test_a_replaced_point_is_read_anew(tmp_path: Path, reads: Counter[str]) -> None:
    directory = write_sweep(tmp_path)
    watched = SnapshotReader(directory)
    for _ in range(4):
        watched.read()
    place = land(directory, tput=123.0, concurrency=16)
    snapshot = watched.read()
    assert snapshot is not None
    (point,) = [candidate for candidate in snapshot.points if candidate.planned.id == place.name]
    assert point.stored is not None
    assert point.stored.result.steady is not None
    assert point.stored.result.steady.tput_tps_per_gpu == 123.0
    assert reads[place.name] == 2


def test_a_result_rewritten_in_its_place_is_found_after_a_while(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SnapshotReader(directory)
    for _ in range(4):
        watched.read()
    path = next(directory.glob("off*_c16_*/result.json"))
    data = json.loads(path.read_text())
    beside = path.with_name("new")
    beside.write_text(json.dumps({**data, "reasons": [{"code": "zero_acceptance", "detail": "x"}]}))
    beside.rename(path)
    seen_states = [states(watched.read())["off c16"] for _ in range(ALL_EVERY)]
    assert (seen_states[0], seen_states[-1]) == ("valid", "invalid")


def test_what_is_broken_is_shown_as_what_it_is_and_mends(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    places = {n: next(directory.glob(f"off*_c{n}_*")) for n in (1, 16, 64)}
    whole = (places[1] / "point.json").read_text()
    (places[1] / "point.json").write_text(whole[:40])
    result = json.loads((places[16] / "result.json").read_text())
    (places[16] / "result.json").write_text(json.dumps({**result, "schema_version": 99}))
    (places[64] / "result.json").unlink()
    watched = SnapshotReader(directory)
    broken = {"off c1": "damaged", "off c16": "other schema", "off c64": "damaged"}
    for _ in range(4):
        snapshot = watched.read()
        assert {name: states(snapshot)[name] for name in broken} == broken
    assert snapshot is not None
    details = {
        f"c{point.planned.concurrency}": point.problem.label
        for point in snapshot.having("damaged", "other schema")
    }
    assert "not JSON" in details["c1"]
    assert "schema version 99" in details["c16"]
    (places[1] / "point.json").write_text(whole)
    shutil.rmtree(places[64])
    snapshot = watched.read()
    assert (states(snapshot)["off c1"], states(snapshot)["off c64"]) == ("valid", "missing")


def test_nothing_in_the_folder_is_touched(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)

    def files_of() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
            for path in (directory, *directory.rglob("*"))
        }

    before = files_of()
    watched = SnapshotReader(directory)
    for _ in range(5):
        watched.read()
    assert files_of() == before
    assert not (directory / ".lock").exists()


def test_the_lock_is_seen_and_never_taken(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SnapshotReader(directory)
    free = watched.read()
    assert free is not None
    if not files._LOCKS.exists():
        pytest.skip("this system has no /proc/locks")
    with exclusive(directory):
        held = watched.read()
        assert held is not None
        assert (held.holder.held, held.holder.pid) == (True, os.getpid())
    after = watched.read()
    assert after is not None
    assert (free.holder.held, after.holder.held) == (False, False)
    with exclusive(directory):
        pass


def test_a_lock_that_nobody_can_ask_about_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LOCKS", tmp_path / "nothing")
    (tmp_path / ".lock").write_text("12")
    assert files.holder_of(tmp_path / ".lock").held is None


def test_the_ids_parts_are_read_from_its_end() -> None:
    planned = PlannedPoint.of("mtp_k3_6xDEP8-1xDEP16_c16384_q2.5_r1_0123abcd")
    assert (planned.arm, planned.topology, planned.concurrency) == ("mtp_k3", "6xDEP8-1xDEP16", 16384)
    assert planned.label == "2.5/s cap 16384 repeat 1"
    assert PlannedPoint.of("else").arm == "else"
    again = replace(store_point(MTP, 4, repeat=2), launch=2)
    parts = PlannedPoint.of(again.id)
    assert (parts.ladder, parts.repeat) == (("mtp", "1xTP8", 2), 2)
    assert ServerStart(key=again.deployment_key, started_s=0.0, grew_s=0.0).ladder == parts.ladder
    for point in (store_point(OFF, 16), store_point(MTP, 4, repeat=2)):
        parts = PlannedPoint.of(point.id)
        assert (parts.arm, parts.topology) == (point.arm.name, point.topology.name)
        assert (parts.concurrency, parts.repeat) == (point.concurrency, point.repeat)


def test_the_newest_servers_of_this_run_tell_the_ladder_and_the_next_point(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    key = store_point(OFF, 512).deployment_key
    for name in ("mtp_1xTP8_00000000@20200101T000000.000000", f"{key}@20990101T000000.500000", "rubbish"):
        (directory / "servers" / name).mkdir(parents=True)
    snapshot = SnapshotReader(directory).read()
    assert snapshot is not None
    assert snapshot.servers is not None
    assert snapshot.servers.key == key
    point = next_of_ladder(snapshot.points, snapshot.servers)
    assert point is not None
    assert point.planned.label == "c512"
    assert snapshot.running == {}, "nobody holds the lock, so nothing is known to run"
    for old in (directory / "servers").glob("*2099*"):
        shutil.rmtree(old)
    again = SnapshotReader(directory).read()
    assert again is not None
    assert again.servers is None, "servers that are older than this run are not its own"


def test_a_ladder_goes_up_and_leaves_out_what_is_valid(tmp_path: Path) -> None:
    snapshot = SnapshotReader(write_sweep(tmp_path)).read()
    assert snapshot is not None
    servers = ServerStart(key=store_point(MTP, 1).deployment_key, started_s=0.0, grew_s=0.0)
    assert next_of_ladder(snapshot.points, servers) is None, "its invalid points landed after the start"
    later = replace(servers, started_s=snapshot.now_s + 10)
    point = next_of_ladder(snapshot.points, later)
    assert point is not None
    assert point.planned.label == "c128"


def test_each_start_of_a_restarted_deployment_serves_its_own_repeat(tmp_path: Path) -> None:
    points = [replace(store_point(OFF, 512, repeat=i), launch=i) for i in range(3)]
    directory = write_sweep(tmp_path, planned=tuple(point.id for point in points))
    snapshot = SnapshotReader(directory).read()
    assert snapshot is not None
    for point in points:
        servers = ServerStart(key=point.deployment_key, started_s=0.0, grew_s=0.0)
        found = next_of_ladder(snapshot.points, servers)
        assert found is not None
        assert found.planned.id == point.id


def test_a_runs_own_file_is_read_and_does_not_stir_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_sweep(tmp_path)
    progress = RunProgress(
        time_utc="2026-11-24T10:01:00+00:00", host="n0", pid=7, point_id=store_point(OFF, 512).id
    )
    watched = SnapshotReader(directory, clock=lambda: 1_795_514_460.0 + 30)
    for i in range(4):
        writer_of(directory).write(replace(progress, requests_ended=i))
        snapshot = watched.read()
    assert snapshot is not None
    assert snapshot.run is not None
    assert (snapshot.run.requests_ended, snapshot.run_here) == (3, False)
    assert snapshot.running == {progress.point_id: True}
    assert snapshot.at_work
    looked: list[Path] = []
    real = files.signature
    monkeypatch.setattr(files, "signature", lambda path: looked.append(path) or real(path))  # type: ignore[func-returns-value]
    writer_of(directory).write(replace(progress, requests_ended=9))
    snapshot = watched.read()
    assert not [path for path in looked if path.name == "result.json"]
    assert snapshot is not None
    assert snapshot.run is not None
    assert snapshot.run.requests_ended == 9
    monkeypatch.undo()
    land(directory, tput=123.0, concurrency=16)
    writer_of(directory).write(progress)
    again = watched.read()
    assert again is not None
    tputs = [
        point.stored.result.steady.tput_tps_per_gpu
        for point in again.points
        if point.stored and point.stored.result.steady
    ]
    assert 123.0 in tputs, "a point that is replaced meanwhile is seen"
    (directory / PROGRESS_FILE).unlink()
    gone = watched.read()
    assert gone is not None
    assert gone.run is None
    (directory / "progress.json").write_text("{")
    torn = watched.read()
    assert torn is not None
    assert torn.run is None
    assert "progress.json" in torn.trouble[0]


def test_a_run_says_that_it_is_simulated_before_a_point_landed(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    for point in [child for child in directory.iterdir() if child.is_dir()]:
        shutil.rmtree(point)
    progress = RunProgress(time_utc="2026-11-24T10:00:00+00:00", host="h", pid=1, stage="starting")
    for simulated in (None, False, True):
        writer_of(directory).write(replace(progress, simulated=simulated))
        snapshot = SnapshotReader(directory).read()
        assert snapshot is not None
        assert snapshot.simulated is bool(simulated)


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
    watched = SnapshotReader(directory, clock=lambda: clock_s)
    snapshot = watched.read()
    assert snapshot is not None
    assert snapshot.running == {point.id: True}
    assert snapshot.at_work
    assert [submission.number for submission in snapshot.unheard] == [1], (
        "the other deployment of the array has not begun"
    )
    clock_s += 3600
    stale = watched.read()
    assert stale is not None
    assert not stale.at_work
    journal.write_finished(
        attempt,
        Finished(outcome="done", ended_utc="", points_valid=1, points_invalid=0, points_left=0),
    )
    clock_s -= 3600
    ended = watched.read()
    assert ended is not None
    assert not ended.at_work
    (journal.root / "current" / f"{key}.json").write_text("{")
    damaged = watched.read()
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
    snapshot = SnapshotReader(directory).read()
    assert snapshot is not None
    estimate = time_left(snapshot)
    assert estimate is not None
    assert (estimate.seconds, estimate.points, estimate.unknown) == (60.0, 1, 2)


def test_a_virtual_clock_gives_no_estimate(tmp_path: Path) -> None:
    snapshot = SnapshotReader(write_sweep(tmp_path)).read()
    assert snapshot is not None
    assert time_left(snapshot) is None


def test_it_is_over_when_all_is_measured_and_nothing_goes_on(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    watched = SnapshotReader(directory)
    first = watched.read()
    assert first is not None
    assert not first.over
    point = store_point(OFF, 512)
    died = (Reason(code="server_died", detail="exit code 1"),)
    store_of(directory).write(point, store_result(point, 1.0, 1.0, reasons=died), provenance(), RAW, {})
    last = watched.read()
    assert last is not None
    assert last.over, "an invalid point is measured too"


class AnsweringSlurm:
    """A Slurm that knows one running job, and counts how often it is asked."""

    def __init__(self, trouble: str | None = None) -> None:
        self.asked, self.trouble = 0, trouble

    def available(self) -> str | None:
        self.asked += 1
        return self.trouble

    def query(self, names: Sequence[str], ids: Collection[str]) -> QueryResult:
        return QueryResult(
            answer="ok", statuses={"9": JobStatus(job_id="9", name="x", state="running", raw="RUNNING")}
        )


@pytest.mark.parametrize(("trouble", "state"), [(None, "running"), ("sbatch is not here", "unknown")])
def test_slurm_is_asked_now_and_then_by_a_reader_that_has_it(
    tmp_path: Path, trouble: str | None, state: str
) -> None:
    directory = write_sweep(tmp_path)
    key = store_point(MTP, 128).deployment_key
    slurm = AnsweringSlurm(trouble)
    reader = SnapshotReader(directory, cast(Slurm, slurm))
    nothing_submitted = reader.read()
    assert nothing_submitted is not None
    assert (nothing_submitted.outcomes, slurm.asked) == ({}, 0)
    submission = Submission(number=1, name="x", keys=(key,), time_utc="", job_id="9")
    Journal(directory).write_submission(submission)
    for _ in range(3):
        snapshot = reader.read()
        assert snapshot is not None
        assert (snapshot.outcomes[key].state, snapshot.slurm_trouble) == (state, trouble)
    assert slurm.asked == 1
    watching = SnapshotReader(directory).read()
    assert watching is not None
    assert watching.statuses is None


TORN = ("", "{", '{"number": 1', "[]", "null")


def asked_of(directory: Path) -> Snapshot:
    snapshot = SnapshotReader(directory, cast(Slurm, AnsweringSlurm())).read()
    assert snapshot is not None
    return snapshot


@pytest.mark.parametrize("text", TORN)
def test_one_torn_submission_hides_no_other_job(tmp_path: Path, text: str) -> None:
    """What the torn one runs is unknown, so a watcher goes on; the job of the other is shown as it is."""
    directory = write_sweep(tmp_path)
    journal, key = Journal(directory), store_point(MTP, 128).deployment_key
    journal.write_submission(Submission(number=1, name="x", keys=(key,), time_utc="", job_id="9"))
    journal.write_submission(Submission(number=2, name="y", keys=("another",), time_utc="", job_id="10"))
    (journal.root / "journal/00002.json").write_text(text)
    snapshot = asked_of(directory)
    assert snapshot.outcomes[key].state == "running"
    assert snapshot.unread_submissions
    assert "00002.json" in snapshot.trouble[0]
    (journal.root / "journal/00001.json").write_text(text)
    blind = asked_of(directory)
    assert blind.outcomes == {}
    assert _is_busy(blind), "`status --watch` goes on although no job is known"


@pytest.mark.parametrize("text", TORN)
@pytest.mark.parametrize("name", ["finished.json", "progress.json"])
def test_a_job_whose_last_word_is_torn_did_start(tmp_path: Path, name: str, text: str) -> None:
    """Slurm has forgotten it: how it ended is unknown, not that it was never started or was killed."""
    directory = write_sweep(tmp_path)
    journal, key = Journal(directory), store_point(MTP, 128).deployment_key
    journal.write_submission(Submission(number=1, name="x", keys=(key,), time_utc="", job_id="7"))
    attempt = Attempt(
        key=key, job_id="7", restart=0, host="n0", pid=1, nodes=("n0",), started_utc="2026-11-24T10:00:00Z"
    )
    journal.take_over(attempt)
    (journal.attempt_directory(attempt) / name).write_text(text)
    outcome = asked_of(directory).outcomes[key]
    assert (outcome.state, outcome.show_log) == ("lost", True)
    assert outcome.text == "Slurm no longer knows job 7, and its files that say how it ended can't be read"


def test_a_job_of_this_folder_that_no_file_knows_is_said(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    journal = Journal(directory)
    (journal.root / "journal").mkdir(parents=True)

    class Knowing(AnsweringSlurm):
        def query(self, names: Sequence[str], ids: Collection[str]) -> QueryResult:
            name = job_name(directory.name, 3, str(directory.parent.resolve()))
            other = JobStatus(job_id="11", name=name, state="running", raw="RUNNING")
            return QueryResult(answer="ok", others=(other, replace(other, job_id="12", name="mine")))

    snapshot = SnapshotReader(directory, cast(Slurm, Knowing())).read()
    assert snapshot is not None
    assert [line.split(" (")[0] for line in snapshot.trouble] == ["job 11"]
    assert snapshot.unread_submissions
