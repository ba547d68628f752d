"""How long it takes to load a results folder with thousands of points, against plain JSON and pandas.

    python benchmarks/load_points.py [--points 2000]

Made-up but lifelike points of a full rack sweep (three JSON files each, command lines and environment
included) are laid out in a temporary folder. Timed in one run, the files in the page cache: our load, which
checks every field of every record and makes a curve's points of them; and `json.load` with
`pandas.json_normalize` for each point, which checks nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench.measure import measure
from mtpbench.metrics.request_table import RequestTable
from mtpbench.provenance import Started, collect
from mtpbench.records import SCHEMA_VERSION, Answers, RequestRecord, RunFacts, to_json
from mtpbench.store import RawPoint, read_sweep
from mtpbench.sweep import Sweep, load_sweep
from mtpbench_analysis.importers.results import read_results

SWEEP = Path(__file__).resolve().parent.parent / "sweeps" / "dsv4-gb200-vllm.yaml"
PROCESSES, WORDS, VARIABLES = 9, 60, 40
FILES = ("point.json", "result.json", "provenance.json")


def lay_out(folder: Path, sweep: Sweep, count: int) -> None:
    """So many stored points without their raw records, which no table reads."""
    words = tuple(f"--an-option-of-the-engine-{i} {i * 1000}" for i in range(WORDS))
    environment = {f"NCCL_SETTING_NUMBER_{i}": f"value-{i}" for i in range(VARIABLES)}
    facts = RunFacts(answers=Answers(texts=("The quick brown fox jumps over the lazy dog. " * 3,) * 4))
    planned = []
    for number in range(count):
        base = sweep.points[number % len(sweep.points)]
        point = replace(base, repeat=number // len(sweep.points))
        seen = measure(replace(point, concurrency=4), RawPoint(requests=requests(), facts=facts))
        times = ("2026-11-24T10:00:00.000+00:00", "2026-11-24T10:30:00.000+00:00")
        origin = replace(
            collect(point, Started(executor="local"), *times),
            command_lines={f"decode-{i}": words for i in range(PROCESSES)},
            environment=environment,
        )
        directory = folder / point.id
        directory.mkdir(parents=True)
        stored = {
            "point.json": {"schema_version": SCHEMA_VERSION, "point": to_json(point)},
            "result.json": to_json(replace(seen, point_id=point.id, reasons=())),
            "provenance.json": to_json(origin),
        }
        for name, data in stored.items():
            (directory / name).write_text(json.dumps(data, indent=1), "utf-8")
        planned.append(point.id)
    info = replace(sweep.info, planned=tuple(planned))
    (folder / "sweep.json").write_text(json.dumps(to_json(info), indent=1), "utf-8")


def requests() -> RequestTable:
    """Four slots that send thirty requests each, one after the other."""
    records = [
        RequestRecord(
            index=i,
            slot=i % 4,
            warmup=i < 4,
            scheduled_s=float(i // 4),
            sent_s=float(i // 4),
            end_s=i // 4 + 0.9,
            chunk_times_s=tuple(i // 4 + 0.1 * (k + 1) for k in range(9)),
            chunk_tokens=tuple(range(1, 10)),
            asked_prompt_tokens=8192,
            asked_output_tokens=9,
            prompt_tokens=8192,
            output_tokens=9,
            finish_reason="length",
        )
        for i in range(120)
    ]
    return RequestTable.from_records(records)


def load_plainly(folder: Path) -> pd.DataFrame:
    """The straightforward way: every file's JSON, flattened by pandas point by point."""
    rows = []
    for point_id in json.loads((folder / "sweep.json").read_text("utf-8"))["planned"]:
        parts = []
        for name in FILES:
            with (folder / point_id / name).open(encoding="utf-8") as file:
                parts.append(pd.json_normalize(json.load(file)).add_prefix(f"{name}."))
        rows.append(pd.concat(parts, axis=1))
    return pd.concat(rows, ignore_index=True)


def timed(work: Callable[[Path], Any], folder: Path) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work(folder)
    return time.perf_counter() - began, made


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--points", type=int, default=2000)
    count = words.parse_args().points
    shown = Table(box=box.SIMPLE_HEAD, title=f"{count:,} stored points", title_justify="left")
    for heading in ("way", "seconds", "points/s", "plain / this"):
        shown.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), load_sweep(SWEEP), count)
        size_mb = sum(path.stat().st_size for path in Path(folder).rglob("*.json")) / 1e6
        plain_s, frame = timed(load_plainly, Path(folder))
        records_s, sweep = timed(read_sweep, Path(folder))
        curve_s, points = timed(read_results, Path(folder))
        assert len(frame) == len(sweep.points) == len(points.points) == count
    for way, seconds in (
        ("read_sweep: checked records", records_s),
        ("read_results: points of curves", curve_s),
        ("json.load and json_normalize", plain_s),
    ):
        shown.add_row(way, f"{seconds:.2f}", f"{count / seconds:,.0f}", f"{plain_s / seconds:.1f}x")
    console = Console(width=110)
    console.print(shown)
    console.print(f"{size_mb:.0f} MB of JSON in {3 * count:,} files")


if __name__ == "__main__":
    main()
