"""Whatever became of the files of a point, each command says so and goes on with the others."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damages import OF_A_FILE, RAW, RECORDS, TO_RECORDS, TO_SAMPLES, Damage, simulate_sweep
from mtpbench.errors import MtpbenchError, SchemaError, StoreError
from mtpbench.records import Point, from_json
from mtpbench.run import measure, plan_run
from mtpbench.store import SweepStore, exclusive, read_place, read_raw, read_sweep, replace_file
from mtpbench.sweep import load_sweep, simulate
from mtpbench_analysis.importers.results import read_results
from mtpbench_analysis.traces import read_traces

Call = Callable[..., tuple[int, str, str]]
EXITS = range(6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sweep file and its results: two arms of two points each."""
    return simulate_sweep(tmp_path_factory.mktemp("whole"), 2)


@pytest.fixture
def folder(whole: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the results."""
    return Path(shutil.copytree(whole[1], tmp_path / "results" / whole[1].name))


def victim(folder: Path) -> Path:
    return next(folder.glob("mtp_*_c2_*"))


def figures(folder: Path, *, without: str = "") -> dict[str, Any]:
    points = read_results(folder).points
    return {point.source: point for point in points if point.source and point.source != without}


@pytest.mark.parametrize("damage", TO_RECORDS.values(), ids=TO_RECORDS)
def test_what_is_damaged_is_said_left_out_and_measured_again(
    whole: tuple[Path, Path], folder: Path, damage: Damage
) -> None:
    place = victim(folder)
    expected = figures(folder, without=place.name)
    damage(place)
    stored = read_sweep(folder)
    assert list(stored.damaged) == [place.name]
    assert str(place) in stored.damaged[place.name]
    assert figures(folder) == expected
    sweep = simulate(load_sweep(whole[0]))
    store = SweepStore(folder.parent, sweep.info)
    store.open()
    assert store.state(place.name) == "damaged"
    plan = plan_run(sweep.points, store)
    assert [point.id for point in plan.points] == [place.name]
    original = read_place(whole[1] / place.name)
    assert original is not None
    store.write(original.point, original.result, original.provenance, read_raw(original.directory), {})
    assert store.state(place.name) == "valid"
    (aside,) = (folder / ".superseded").iterdir()
    assert aside.name == f"{place.name}~0000"


@pytest.mark.parametrize("damage", TO_SAMPLES.values(), ids=TO_SAMPLES)
def test_figures_outlive_their_samples(folder: Path, damage: Damage) -> None:
    place, expected = victim(folder), figures(folder)
    damage(place)
    assert figures(folder) == expected
    with pytest.raises(StoreError, match=str(place)):
        read_raw(place)
    (sweep,) = read_traces([folder])
    assert len(sweep.points) == 4


def test_every_command_goes_on_with_what_is_whole(
    cli: Call, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every third damage at once, each to a point of its own."""
    damages = [*TO_RECORDS.values(), *TO_SAMPLES.values()][::3]
    path, folder = simulate_sweep(tmp_path_factory.mktemp("all"), len(damages) // 2 + 4)
    twin = shutil.copytree(folder, folder.with_name("twin"))
    stored = read_sweep(folder)
    places = [point.directory for point in stored.points]
    healthy = {place.name for place in places[len(damages) :]}
    before = {name: point for name, point in figures(folder).items() if name in healthy}
    for damage, place in zip(damages, places, strict=False):
        damage(place)
    commands = (
        ("status", path, "--results", folder.parent),
        ("compare", folder),
        ("compare", folder, "--format", "json"),
        ("report", folder),
        ("tables", folder),
        ("watch", folder, "--once"),
        ("plot", folder, "-o", "x.svg"),
        ("plot", folder, "--power", "-o", "y.svg"),
        ("regress", twin, folder),
        ("best", folder, "--interactivity", "50"),
    )
    for command in commands:
        code, out, err = cli(*command)
        assert code in (0, 3), (command, out, err)
    code, _, err = cli("recompute", folder)
    assert code == StoreError.exit_code
    assert err.count("not recomputed: ") == len(damages)
    after = {name: point for name, point in figures(folder).items() if name in healthy}
    assert after == before


@pytest.mark.parametrize("name", [*RECORDS, "sweep.json"])
def test_another_versions_record_is_refused_and_never_measured_over(
    cli: Call, whole: tuple[Path, Path], folder: Path, name: str
) -> None:
    path = folder / name if name == "sweep.json" else victim(folder) / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    for command in (("compare", folder), ("report", folder), ("recompute", folder)):
        code, _, err = cli(*command)
        assert (code, "schema version 99" in err) == (SchemaError.exit_code, True)
    assert cli("run", whole[0], "--simulate", "--results", folder.parent)[0] == SchemaError.exit_code


def test_a_point_of_an_engine_that_is_none_is_named(cli: Call, folder: Path) -> None:
    """Results of a later version may have one; the other points are recomputed."""
    place = victim(folder)
    written = json.loads((place / "point.json").read_text())
    written["point"]["engine"]["name"] = "other"
    renamed = from_json(Point, written["point"]).id
    (place / "point.json").write_text(json.dumps(written))
    for path in (place / "result.json", folder / "sweep.json"):
        path.write_text(path.read_text().replace(place.name, renamed))
    place.rename(folder / renamed)
    code, out, said = cli("recompute", folder)
    assert (code, out.split(",")[0]) == (2, "3 results recomputed from raw records")
    assert f"not recomputed: {renamed}: no engine is called 'other'; there are simulated, vllm" in said
    assert cli("compare", folder)[0] == 0


@pytest.mark.parametrize("kind", ["cut", "a folder", "a link to itself", "a pipe", "gone"])
def test_a_damaged_sweep_file_is_one_message(cli: Call, folder: Path, kind: str) -> None:
    OF_A_FILE[kind]("sweep.json")(folder)
    for command in ("compare", "report", "recompute", "best", "plot"):
        code, _, err = cli(command, folder)
        assert code in (2, 4)
        assert "sweep.json" in err
    assert cli("watch", folder, "--once")[0] in EXITS


@contextmanager
def without_rights() -> Iterator[None]:
    """Takes from root, for a while, the right to read what nobody may."""
    if os.geteuid():
        yield
        return
    header, now = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.capget(header, now)
    fewer = (ctypes.c_uint32 * 6)(*now)
    fewer[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert not libc.capset(header, fewer)
    try:
        yield
    finally:
        libc.capset(header, now)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize("inside", ["", "point.json", "result.json", "requests.parquet", "power.parquet"])
def test_what_may_not_be_read_is_said(cli: Call, whole: tuple[Path, Path], folder: Path, inside: str) -> None:
    place = victim(folder)
    original = read_place(whole[1] / place.name)
    assert original is not None
    (place / inside).chmod(0)
    try:
        with without_rights():
            codes = [cli(command, folder)[0] for command in ("compare", "report", "recompute")]
            assert codes == [0, 0, 4]
            store = SweepStore(folder.parent, read_sweep(folder).info)
            assert store.state(place.name) == ("valid" if inside.endswith("parquet") else "damaged")
            store.write(
                original.point, original.result, original.provenance, read_raw(original.directory), {}
            )
            assert store.state(place.name) == "valid"
    finally:
        aside = next(p for p in (*folder.glob(".*~0000"), *folder.glob(".superseded/*")))
        (aside / inside if inside else aside).chmod(0o700)
    assert len(list(aside.iterdir())) > 5, "what can't be read is never deleted"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_of_any_file_may_be_any_other(folder: Path, data: st.DataObject) -> None:
    """It is found, or it is a value that can be; nothing else of the sweep changes."""
    place = victim(folder)
    expected = figures(folder, without=place.name)
    path = place / data.draw(st.sampled_from((*RECORDS, *RAW)))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    piece = data.draw(st.binary(max_size=4))
    keep = data.draw(st.integers(0, 4))
    try:
        path.write_bytes(content[:at] + piece + (content[at + keep :] if keep < 4 else b""))
        try:
            stored = read_place(place)
            assert stored is not None
            measure(stored.point, read_raw(place))
            assert figures(folder, without=place.name) == expected
        except MtpbenchError as error:
            assert str(place) in str(error)  # noqa: PT017 (an error is no must)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_lock_is_no_way_to_another_file(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    results = tmp_path / "results"
    results.mkdir()
    lock = results / ".lock"
    lock.symlink_to(precious) if kind == "symbolic" else lock.hardlink_to(precious)
    with pytest.raises(StoreError, match=r"\.lock"), exclusive(results):
        pass
    assert precious.read_text() == "precious"


def test_no_name_of_a_temporary_file_or_attempt_can_be_guessed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    monkeypatch.setattr("mtpbench.store.files.secrets.token_hex", lambda size: "0" * 2 * size)
    host, pid = os.uname().nodename, os.getpid()
    planted = folder / f".sweep.json.{host}.{pid}.00000000"
    planted.symlink_to(precious)
    stored = read_sweep(folder)
    with pytest.raises(StoreError, match="can't be written"):
        replace_file(folder / "sweep.json", "{}")
    planted = folder / ".attempts" / f"{stored.points[0].point.id}@{host}@{pid}.00000000"
    planted.symlink_to(tmp_path)
    store, point = SweepStore(folder.parent, stored.info), stored.points[0]
    with pytest.raises(StoreError, match="can't be written"):
        store.write(point.point, point.result, point.provenance, read_raw(point.directory), {})
    assert precious.read_text() == "precious"
    assert not (tmp_path / "logs").exists()
    shutil.rmtree(folder / ".superseded")
    (folder / ".superseded").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="symbolic link"):
        store.open()


def test_what_a_killed_writer_left_is_swept_by_the_next(folder: Path) -> None:
    host = os.uname().nodename
    dead = 2**22 + 1  # above the largest process id
    left = [f".progress.json.{host}.{dead}", f".comparison.md.{host}.{dead}.0123abcd"]
    kept = [f".comparison.md.{host}.{os.getpid()}.0123abcd", f".comparison.md.elsewhere.{dead}.0123abcd"]
    for name in (*left, *kept):
        (folder / name).write_text("half")
    SweepStore(folder.parent, read_sweep(folder).info).open()
    assert {name for name in (*left, *kept) if (folder / name).exists()} == set(kept)
