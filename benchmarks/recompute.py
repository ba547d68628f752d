"""How long recomputing a stored point takes and how much memory, against pandas with a row for every chunk.

    python benchmarks/recompute.py [--millions 60]

The point is made up: a closed loop of 16,384 slots, 366 chunks a request, gaps with the noise of real steps.
Each way runs in a process of its own; printed are its wall time without the imports, and its peak resident
memory with them. `mtpbench recompute` gives every figure of a result; the plain way (pandas: explode the
lists to one row per chunk, group by request) gives throughput, interactivity and percentiles of gaps, and
must agree with ours. At full size it would not fit this machine: beyond 5 million chunks both are compared at
5 million, and ours alone is run at full size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench.hardware import lookup
from mtpbench.measure import measure
from mtpbench.metrics.request_table import UNKNOWN, RequestTable, whole_us
from mtpbench.provenance import Started, collect
from mtpbench.records import (
    Arm,
    ClientHealth,
    Engine,
    Measurement,
    Model,
    Point,
    RunFacts,
    SweepInfo,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.run import recompute
from mtpbench.store import RawPoint, SweepStore

EVENTS_PER_REQUEST, REQUESTS_PER_SLOT = 366, 10
GAP_S, NOISE_S = 0.060, 0.010
COMPARED_MILLIONS = 5.0
GPUS = 64


def closed_loop(millions: float) -> RequestTable:
    """Every slot sends ten requests one after the other; the first is warm-up."""
    rng = np.random.default_rng(1)
    slots = max(1, round(millions * 1e6 / EVENTS_PER_REQUEST / REQUESTS_PER_SLOT))
    shape = (REQUESTS_PER_SLOT, slots, EVENTS_PER_REQUEST)
    times = rng.gamma((GAP_S / NOISE_S) ** 2, NOISE_S**2 / GAP_S, size=shape)
    times[:, :, 0] = rng.gamma(4.0, 1.2, size=shape[:2])
    np.cumsum(times, axis=2, out=times)
    ends = np.cumsum(times[:, :, -1] + 0.001, axis=0)
    sent = (ends - times[:, :, -1]).ravel()
    times += sent.reshape(*shape[:2], 1)
    tokens = np.cumsum(rng.choice([1, 2, 3, 4], size=shape, p=[0.25, 0.3, 0.25, 0.2]), axis=2)
    rows = slots * REQUESTS_PER_SLOT
    outputs = tokens[:, :, -1].ravel()
    return RequestTable(
        index=np.arange(rows),
        slot=np.arange(rows) % slots,
        warmup=np.arange(rows) < slots,
        scheduled_us=whole_us(sent),
        sent_us=whole_us(sent),
        end_us=whole_us(times[:, :, -1].ravel()),
        asked_prompt_tokens=np.full(rows, 8192),
        asked_output_tokens=outputs,
        prompt_tokens=np.full(rows, 8192),
        output_tokens=outputs,
        cached_prompt_tokens=np.full(rows, UNKNOWN),
        reasoning_tokens=np.full(rows, UNKNOWN),
        finish_reason=np.full(rows, "length", object),
        error=np.full(rows, None, object),
        error_detail=np.full(rows, None, object),
        chunk_offsets=np.arange(rows + 1) * EVENTS_PER_REQUEST,
        chunk_times_us=whole_us(times.ravel()),
        chunk_tokens=tokens.ravel(),
    )


def store(root: Path, millions: float) -> None:
    """Store the point as a run would."""
    table = closed_loop(millions)
    point = Point(
        sweep="bench",
        model=Model(path="m", served_name="m", precision="fp4"),
        hardware="gb200-nvl72",
        engine=Engine(name="vllm"),
        arm=Arm(name="off"),
        topology=Topology(groups=(WorkerGroup(role="aggregated", workers=8, tp=8),)),
        concurrency=int(table.slot.max()) + 1,
        repeat=0,
        seed=0,
        workload=Workload(isl=8192, osl=1024),
        measurement=Measurement(),
    )
    info = SweepInfo(
        name="bench",
        question="?",
        arms=("off",),
        baseline="off",
        hardware=lookup("gb200-nvl72", "2026-05"),
        planned=(point.id,),
    )
    raw = RawPoint(requests=table, counters=(), power=(), client=ClientHealth(), facts=RunFacts())
    result = measure(point, raw)
    results = SweepStore(root, info)
    results.open()
    times = ("2026-11-24T10:00:00.000+00:00", "2026-11-24T10:30:00.000+00:00")
    results.write(point, result, collect(point, Started(executor="local"), *times), raw, {})


def ours(directory: Path) -> dict[str, float]:
    before, after = recompute(directory)
    assert before == after
    assert after.steady is not None
    assert after.icl_s is not None
    return {
        "tput_tps_per_gpu": after.steady.tput_tps_per_gpu,
        "interactivity_tps": after.interactivity_tps or 0.0,
        "icl_p50_s": after.icl_s.p50,
        "icl_p99_s": after.icl_s.p99,
    }


def plain(directory: Path) -> dict[str, float]:
    """The straightforward way."""
    requests = pd.read_parquet(directory / "requests.parquet")
    for name in ("sent", "end"):
        requests[f"{name}_s"] = requests.pop(f"{name}_us") * 1e-6
    chunks = requests.explode(["chunk_gaps_us", "chunk_tokens_brought"], ignore_index=True)
    chunks = chunks.astype({"chunk_gaps_us": "int64", "chunk_tokens_brought": "int64"})
    by_request = chunks.groupby("index")
    chunks["time_s"] = chunks["sent_s"] + by_request["chunk_gaps_us"].cumsum() * 1e-6
    chunks["gap_s"] = by_request["time_s"].diff()
    requests = requests.set_index("index").join(by_request["time_s"].agg(["min", "max"]))
    requests["first_tokens"] = by_request["chunk_tokens_brought"].first()
    start_s = max(requests.groupby("slot")["min"].min().max(), requests[~requests["warmup"]]["sent_s"].min())
    end_s = requests.groupby("slot")["end_s"].max().min()
    within = chunks[(chunks["time_s"] > start_s) & (chunks["time_s"] <= end_s)]
    outputs = within.groupby("index")["chunk_tokens_brought"].sum()
    inputs = outputs / requests["output_tokens"] * requests["prompt_tokens"]
    done = ~requests["warmup"] & (requests["end_s"] > start_s) & (requests["end_s"] <= end_s)
    counted = requests[done]
    tpot_s = (counted["max"] - counted["min"]) / (counted["output_tokens"] - counted["first_tokens"])
    gaps = chunks[chunks["index"].isin(counted.index)]["gap_s"].dropna()
    return {
        "tput_tps_per_gpu": float((inputs.sum() + outputs.sum()) / (end_s - start_s) / GPUS),
        "interactivity_tps": float(1 / tpot_s.median()),
        "icl_p50_s": float(gaps.quantile(0.5)),
        "icl_p99_s": float(gaps.quantile(0.99)),
    }


def work(way: str, root: Path, millions: float) -> None:
    """What a process of its own does; it prints one line of JSON."""
    began = time.perf_counter()
    if way == "store":
        store(root, millions)
        return
    (directory,) = (path.parent for path in root.glob("bench/*/point.json"))
    figures = {"ours": ours, "plain": plain}[way](directory)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text("utf-8")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak_mib": int(peak) / 1024, "figures": figures}))


def run_apart(way: str, root: Path, millions: float) -> dict[str, Any]:
    command = (sys.executable, __file__, "--way", way, "--root", str(root), "--millions", str(millions))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.stdout else {}


def compare(shown: Table, millions: float, ways: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_apart("store", Path(folder), millions)
        found = {way: run_apart(way, Path(folder), millions) for way in ways}
    mine = found["ours"]
    for way, one in found.items():
        for name, value in one["figures"].items():
            assert abs(value / mine["figures"][name] - 1) < 1e-9, (way, name)
        shown.add_row(
            "mtpbench recompute" if way == "ours" else "pandas, a row per chunk",
            f"{millions:g} M",
            f"{one['seconds']:.1f}",
            f"{one['peak_mib']:,.0f}",
            f"{one['seconds'] / mine['seconds']:.1f}x",
            f"{one['peak_mib'] / mine['peak_mib']:.1f}x",
        )


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--millions", type=float, default=60.0, help="of chunks")
    words.add_argument("--way", choices=("store", "ours", "plain"), help=argparse.SUPPRESS)
    words.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.way:
        work(given.way, given.root, given.millions)
        return
    shown = Table(box=box.SIMPLE_HEAD, title="Recomputing one stored point", title_justify="left")
    for heading in ("way", "chunks", "seconds", "peak MiB", "time / ours", "memory / ours"):
        shown.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    compare(shown, min(given.millions, COMPARED_MILLIONS), ("ours", "plain"))
    if given.millions > COMPARED_MILLIONS:
        compare(shown, given.millions, ("ours",))
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
