"""What it costs to prepare prompts: rendering each one anew, against slices of a pool; held all at once.

.venv/bin/python benchmarks/prompts.py [PAIRS]

Each way runs in a process of its own, in alternating order; ratios are medians over pairs.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from mtpbench.records import Workload
from mtpbench.workload import Prompts, draw_lengths

WAYS = ("rendered", "sliced")
CASES = ((16384, 8192), (64, 1_000_000))
"""Requests held at once, tokens of each."""


def render_anew(count: int, tokens: int) -> Callable[[int], object]:
    """How prompts were made before: each one's token ids drawn and written on their own."""
    lengths = draw_lengths(Workload(isl=tokens, osl=1024), count, 1)
    written = np.array([f"{i:>5}," for i in range(4000, 28000)], "S6")

    def body(index: int) -> bytes:
        options = {"model": "m", "max_tokens": int(lengths.output_tokens[index]), "stream": True}
        rng = np.random.default_rng([1, 3, index])
        chosen = rng.integers(0, len(written), size=int(lengths.prompt_tokens[index]))
        return json.dumps(options).encode()[:-1] + b',"prompt":[' + written[chosen].tobytes()[:-1] + b"]}"

    return body


def slice_pool(count: int, tokens: int) -> Callable[[int], object]:
    """As they are made now."""
    workload = Workload(isl=tokens, osl=1024)
    lengths = draw_lengths(workload, count, 1)
    return Prompts(workload, lengths, 1, model_name="m", continuous_usage=True).pieces


def prepare(way: str, count: int, tokens: int) -> dict[str, float]:
    """Seconds until all requests of a run are held, its set-up included, and the process's peak memory."""
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    make = (render_anew if way == "rendered" else slice_pool)(count, tokens)
    ready = time.perf_counter()
    held = [make(index) for index in range(count)]
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(held) == count
    return {
        "seconds": ended - began,
        "us": (ended - ready) / count * 1e6,
        "mib": peak / 1024,
        "more_mib": (peak - bare) / 1024,
    }


def measure(way: str, count: int, tokens: int) -> dict[str, float]:
    """`prepare` in a process of its own."""
    command = [sys.executable, __file__, "--prepare", way, str(count), str(tokens)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--prepare"]:
        print(json.dumps(prepare(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"median of {pairs} pairs; memory is the process's peak, and how far that is above its start")
    print("requests     tokens  way         seconds  µs/request  peak MiB      above MiB")
    for count, tokens in CASES:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for pair in range(pairs):
            for way in WAYS if pair % 2 == 0 else WAYS[::-1]:
                runs[way].append(measure(way, count, tokens))
        for way in WAYS:
            got = {key: statistics.median(run[key] for run in runs[way]) for key in runs[way][0]}
            print(
                f"{count:8d}  {tokens:9d}  {way:9s}  {got['seconds']:8.3f}  {got['us']:10.1f}  "
                f"{got['mib']:8.0f}  {got['more_mib']:13.0f}"
            )
        ratios = {
            key: statistics.median(
                a[key] / b[key] for a, b in zip(runs["rendered"], runs["sliced"], strict=True)
            )
            for key in ("seconds", "us", "more_mib")
        }
        print(
            f"{'rendered / sliced':31s}  {ratios['seconds']:7.1f}×  {ratios['us']:9.1f}×  {'':8s}  "
            f"{ratios['more_mib']:12.1f}×"
        )


if __name__ == "__main__":
    main()
