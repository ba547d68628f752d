"""Several writers of one sweep: jobs on many nodes, orphans of requeued ones, whoever submits meanwhile."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import test_store
from test_store import raw_point, store_at, write

from mtpbench.errors import SchemaError
from mtpbench.measure import measure
from mtpbench.provenance import Started, collect
from mtpbench.store import SweepStore, read_raw, read_sweep
from mtpbench.sweep import Sweep, load_sweep


@pytest.fixture
def sweep(write_sweep) -> Sweep:
    return load_sweep(write_sweep())


def set_aside(store: SweepStore, sweep: Sweep, requests: int) -> Path:
    point, raw = sweep.points[0], raw_point(requests)
    result = measure(point, raw)
    provenance = collect(point, Started(executor="test"), "2026-01-01T00:00:00", "2026-01-01T00:01:00")
    return store.write(point, result, provenance, raw, {}, superseded=True)


def make_valid(directory: Path) -> None:
    path = directory / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reasons": []}))


def superseded(store: SweepStore) -> list[int]:
    return sorted(len(read_raw(path).requests) for path in (store.directory / ".superseded").iterdir())


def test_an_orphans_point_is_kept_beside_and_takes_no_place(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    aside = set_aside(store, sweep, 7)
    assert aside.parent.name == ".superseded"
    assert store.state(sweep.points[0].id) == "missing"
    directory = write(store, sweep.points[0], raw_point(6))
    set_aside(store, sweep, 8)
    assert len(read_raw(directory).requests) == 6
    assert superseded(store) == [7, 8]
    assert list((store.directory / ".attempts").iterdir()) == []
    store.open()
    assert superseded(store) == [7, 8]


def test_a_job_that_joins_changes_nothing_of_what_is_there(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0])
    leaving = store.directory / ".superseded" / f"{directory.name}~0000.replacing"
    directory.rename(leaving)
    foreign = store.directory / ".attempts" / "x@another-node@1"
    foreign.mkdir()
    before = (store.directory / "sweep.json").stat().st_mtime_ns
    other = dataclasses.replace(sweep.info, question="Another?")
    SweepStore(tmp_path, other).attach()
    assert leaving.exists()
    assert foreign.exists()
    assert (store.directory / "sweep.json").stat().st_mtime_ns == before
    fresh = SweepStore(tmp_path / "new", sweep.info)
    fresh.attach()
    assert read_sweep(fresh.directory).info == sweep.info


def test_a_job_of_another_version_does_not_join(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    path = store.directory / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(SchemaError):
        SweepStore(tmp_path, sweep.info).attach()


def test_attempts_of_other_hosts_are_left_alone(tmp_path: Path, sweep: Sweep) -> None:
    store = store_at(tmp_path, sweep.info)
    foreign = store.directory / ".attempts" / "x@another-node@1"
    foreign.mkdir()
    store.open()
    assert foreign.exists()


def test_a_valid_point_that_arrives_meanwhile_is_put_back(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer's valid point lands between our look and our rename; ours is invalid."""
    store = store_at(tmp_path, sweep.info)
    directory = write(store, sweep.points[0], raw_point(6))
    looks = []
    look = SweepStore.state

    def late(self: SweepStore, point_id: str) -> str:
        state = look(self, point_id)
        if not looks:
            make_valid(directory)
        looks.append(state)
        return state

    monkeypatch.setattr(SweepStore, "state", late)
    write(store, sweep.points[0], raw_point(9))
    assert looks == ["invalid", "valid"]
    assert len(read_raw(directory).requests) == 6
    assert superseded(store) == [9]


def test_many_writers_of_the_same_points_lose_nothing(tmp_path: Path, write_sweep) -> None:
    """Four processes write the same two points again and again, while a fifth opens the sweep."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        import test_store
        from mtpbench.store import SweepStore
        from mtpbench.sweep import load_sweep
        sweep = load_sweep(Path(sys.argv[1]))
        store = SweepStore(Path(sys.argv[2]), sweep.info)
        number = int(sys.argv[4])
        print("ready", flush=True)
        sys.stdin.readline()
        for turn in range(15):
            for point in sweep.points[:2]:
                if number:
                    test_store.write(store, point, test_store.raw_point(10 * number + turn % 10))
            if not number:
                store.open()
        """
    )
    path = write_sweep()
    sweep = load_sweep(path)
    store = store_at(tmp_path, sweep.info)
    here = str(Path(test_store.__file__).parent)
    children = [
        subprocess.Popen(
            (sys.executable, "-c", program, str(path), str(tmp_path), here, str(number)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.communicate("go\n", timeout=120)
        assert child.returncode == 0
    store.open()
    stored = read_sweep(store.directory)
    assert {point.point.id for point in stored.points} == {point.id for point in sweep.points[:2]}
    assert len(superseded(store)) == 4 * 15 * 2 - 2
    assert list((store.directory / ".attempts").iterdir()) == []
    assert not list((store.directory / ".superseded").glob("*.replacing"))
