"""What can become of a stored point: damages by name, each done to the folder of one point."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtpbench.run import run_virtual_point
from mtpbench.store import SweepStore
from mtpbench.sweep import load_sweep, simulate

Damage = Callable[[Path], object]
RECORDS = ("point.json", "result.json", "provenance.json")
RAW = ("raw.json", "requests.parquet", "counters.parquet", "power.parquet")
SWEEP = """
sweep: small
question: Small?
model: {path: m, served_name: m, precision: fp4}
hardware: gb200-nvl72
engine: {name: simulated, profile: dsv4-gb200, clock: scaled, speed: 10}
workload: {isl: 64, osl: 16, range_ratio: 0.8}
measurement: {warmup_per_slot: 0.5, requests_per_slot: 4, min_requests: 8, min_window_s: 0.1, idle_s: 0}
arms:
  off:
  mtp: {draft_tokens: 3, acceptance: golden}
baseline: off
topologies:
  - {aggregated: 1xTP8, concurrency: [LADDER]}
"""


def simulate_sweep(folder: Path, concurrencies: int) -> tuple[Path, Path]:
    """Simulates a sweep with so many points in each of two arms; returns its file and its results folder."""
    path = folder / "small.yaml"
    path.write_text(SWEEP.replace("LADDER", ", ".join(map(str, range(1, concurrencies + 1)))))
    sweep = simulate(load_sweep(path))
    store = SweepStore(folder / "results", sweep.info)
    store.open()
    for point in sweep.points:
        run_virtual_point(point, point.deployment_key, store)
    return path, store.directory


def _cut(name: str, share: float) -> Damage:
    def act(place: Path) -> None:
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: int(len(content) * share)])

    return act


def _replaced(name: str, content: bytes) -> Damage:
    return lambda place: (place / name).write_bytes(content)


def _in_its_place(name: str, make: Callable[[Path], object]) -> Damage:
    def act(place: Path) -> None:
        (place / name).unlink()
        make(place / name)

    return act


def _flipped(name: str, share: float) -> Damage:
    def act(place: Path) -> None:
        content = bytearray((place / name).read_bytes())
        content[int(len(content) * share)] ^= 0xFF
        (place / name).write_bytes(content)

    return act


def _changed(name: str, *keys: str | int, to: Any) -> Damage:
    def act(place: Path) -> None:
        data = json.loads((place / name).read_text())
        *outer, last = keys
        functools.reduce(lambda inner, key: inner[key], outer, data)[last] = to
        (place / name).write_text(json.dumps(data))

    return act


def _column(name: str, column: str, change: Callable[[list[Any]], Any]) -> Damage:
    """A column of other values; of another type where the values are."""

    def act(place: Path) -> None:
        table = pq.read_table(place / name)
        field, values = table.schema.field(column), change(table[column].to_pylist())
        try:
            array = pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            array = pa.array(values)
        index = table.schema.get_field_index(column)
        pq.write_table(table.set_column(index, column, array), place / name)

    return act


def _no_utf8(place: Path) -> None:
    table = pq.read_table(place / "requests.parquet")
    index = table.schema.get_field_index("finish_reason")
    raw = pa.array([b"le\x8agth"] * len(table), pa.binary())
    texts = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    pq.write_table(table.set_column(index, table.schema.field(index), texts), place / "requests.parquet")


def _emptied(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


def _instead(make: Callable[[Path], object]) -> Damage:
    def act(place: Path) -> None:
        shutil.rmtree(place)
        make(place)

    return act


OF_A_FILE: dict[str, Callable[[str], Damage]] = {
    "cut": lambda name: _cut(name, 0.5),
    "empty": lambda name: _cut(name, 0),
    "gone": lambda name: lambda place: (place / name).unlink(),
    "a folder": lambda name: _in_its_place(name, Path.mkdir),
    "a link to nowhere": lambda name: _in_its_place(name, lambda path: path.symlink_to("nowhere")),
    "a link to itself": lambda name: _in_its_place(name, lambda path: path.symlink_to(path.name)),
    "a pipe": lambda name: _in_its_place(name, os.mkfifo),
    "no UTF-8": lambda name: _replaced(name, b'{"schema_version": 5, "\xff\xfe": 1}'),
    "null": lambda name: _replaced(name, b"null"),
    "a list": lambda name: _replaced(name, b"[1]"),
    "deep": lambda name: _replaced(name, b"[" * 100_000),
    "deep options": lambda name: _replaced(
        name, b'{"schema_version": 6, "point": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"
    ),
    "no version": lambda name: _replaced(name, b'{"schema_wersion": 5}'),
    "a version that is a list": lambda name: _replaced(name, b'{"schema_version": [5]}'),
}
GROUPS = ("point.json", "point", "topology", "groups")
TO_RECORDS: dict[str, Damage] = {
    **{f"{name}: {kind}": make(name) for name in RECORDS for kind, make in OF_A_FILE.items()},
    "a key too many": _changed("result.json", "zzz", to=1),
    "no topology": _changed(*GROUPS, to=[]),
    "no GPUs": _changed(*GROUPS, 0, "workers", to=0),
    "too many GPUs": _changed(*GROUPS, 0, "tp", to=10**18),
    "no concurrency": _changed("point.json", "point", "concurrency", to=0),
    "another point's load": _changed("point.json", "point", "concurrency", to=4097),
    "another point's result": _changed("result.json", "point_id", to="x"),
    "options without a bottom": _changed(
        "point.json", "point", "engine", "flags", to={"all": {"a": json.loads("[" * 60 + "]" * 60)}}
    ),
    "huge interactivity": _changed("result.json", "interactivity_tps", to=1e308),
    "huge throughput": _changed("result.json", "steady", "tput_tps_per_gpu", to=1e300),
    "a whole number that is no float": _changed("result.json", "interactivity_tps", to=10**400),
    "a window that ends before it starts": _changed("result.json", "steady", "end_s", to=-5.0),
    "a negative TTFT": _changed("result.json", "ttft_s", "p50", to=-1.0),
    "blocks of two lengths": _changed(
        "result.json",
        "blocks",
        to={"duration_s": 1.0, "tput_tps_per_gpu": [1.0] * 6, "interactivity_tps": [1.0] * 5},
    ),
    "a file instead of its folder": _instead(lambda place: place.write_text("x")),
    "an empty folder": _emptied,
    "a link to itself instead": _instead(lambda place: place.symlink_to(place.name)),
    "a link to nowhere instead": _instead(lambda place: place.symlink_to("nowhere")),
    "a pipe instead": _instead(os.mkfifo),
}
"""What makes a point damaged: none of its figures can be trusted."""
REQUESTS, COUNTERS, POWER = "requests.parquet", "counters.parquet", "power.parquet"
TO_SAMPLES: dict[str, Damage] = {
    **{f"{name}: {kind}": make(name) for name in RAW for kind, make in OF_A_FILE.items()},
    **{f"{name}: flipped at {at}": _flipped(name, at) for name in RAW[1:] for at in (0.02, 0.97)},
    "text that is no UTF-8": _no_utf8,
    "no times": _column(REQUESTS, "sent_us", lambda values: [None] * len(values)),
    "times as texts": _column(REQUESTS, "sent_us", lambda values: ["x"] * len(values)),
    "huge times": _column(REQUESTS, "end_us", lambda values: [2**62] * len(values)),
    "ends before it was sent": _column(REQUESTS, "end_us", lambda values: [-5] * len(values)),
    "no gaps": _column(REQUESTS, "chunk_gaps_us", lambda values: [None] * len(values)),
    "fewer gaps": _column(REQUESTS, "chunk_gaps_us", lambda values: [item[:-1] for item in values]),
    "huge gaps": _column(REQUESTS, "chunk_gaps_us", lambda values: [[2**62] * len(v) for v in values]),
    "negative tokens": _column(REQUESTS, "output_tokens", lambda values: [-7] * len(values)),
    "warm-up as numbers": _column(REQUESTS, "warmup", lambda values: [1] * len(values)),
    "categories as numbers": _column(REQUESTS, "category", lambda values: [1] * len(values)),
    "negative drafts": _column(REQUESTS, "drafts", lambda values: [-7] * len(values)),
    "counters without times": _column(COUNTERS, "time_s", lambda values: [None] * len(values)),
    "counters without positions": _column(COUNTERS, "per_position", lambda values: [None] * len(values)),
    "power without processes": _column(POWER, "process", lambda values: [None] * len(values)),
    "GPUs as texts": _column(POWER, "gpu", lambda values: ["x"] * len(values)),
    "power beyond all sense": _column(POWER, "power_w", lambda values: [1e308] * len(values)),
    "energy that is no number": _column(POWER, "energy_j", lambda values: [float("nan")] * len(values)),
}
"""What spoils the samples behind the figures: the figures stand, and can't be computed again."""
