"""The load client beside others, one core each, on a mock server that costs as little as possible.

.venv/bin/python benchmarks/client/run.py [--quick] [--only CLIENT]… [--scenario NAME]… [--rounds N] [--full]
    [--markdown PATH] [--json PATH] [--plot PATH.svg]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plot
from clients import CLIENTS, NOT_AVAILABLE
from clients.base import Client
from environments import BuildError
from measurement import measure
from mock_server import build_mock
from scenarios import SCENARIOS, Scenario
from summary import OURS, add_memory
from tables import build_grids, build_notes, print_rich, to_markdown
from workers import measure_workers

QUICK_CLIENTS = ("ours", "aiohttp", "vllm")
LIMIT_S, FULL_LIMIT_S = 120, 600


def read_words() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="the load client beside others, one core each")
    parser.add_argument("--quick", action="store_true", help="fewer clients and scenarios, one round")
    parser.add_argument(
        "--full", action="store_true", help="slow clients too run every scenario in every round"
    )
    parser.add_argument("--only", action="append", choices=list(CLIENTS), help="this client; may be repeated")
    parser.add_argument(
        "--scenario", action="append", choices=[s.name for s in SCENARIOS], help="may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="times that each is measured (default 2)")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--json", type=Path, help="write every figure of every run there")
    parser.add_argument("--plot", type=Path, help="write an SVG there")
    return parser.parse_args()


def set_up(clients: Sequence[Client]) -> tuple[dict[str, Path], dict[str, str], list[str]]:
    """Each client's interpreter and version; those that could not be set up are named with the reason."""
    pythons, versions, left_out = {}, {}, []
    for client in clients:
        say(f"setting up {client.label}, unless it is there")
        try:
            pythons[client.name] = client.prepare()
            versions[client.name] = client.version(pythons[client.name])
        except BuildError as error:
            left_out.append(f"{client.label}: can't be set up: {error}")
    return pythons, versions, left_out


def reason_to_skip(client: Client, scenario: Scenario, words: argparse.Namespace) -> str | None:
    """Why a client does not run a scenario at all, or None."""
    if scenario.drained and client.name != OURS:
        return "stops and drains our own worker processes only"
    asked = words.full or words.only or words.scenario
    too_slow = scenario.heavy if client.speed == "middling" else not scenario.slow_too
    if client.speed != "fast" and too_slow and not asked:
        return "slow, so left out by default (--full, --only or --scenario)"
    return None


def measure_all(
    clients: Sequence[Client],
    scenarios: Sequence[Scenario],
    pythons: dict[str, Path],
    words: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run, and what was left out; clients alternate within a scenario, every other round backwards."""
    runs, left_out = [], []
    everything = words.full or bool(words.only)
    limit_s = FULL_LIMIT_S if everything else LIMIT_S
    for scenario in scenarios:
        able = []
        for client in clients:
            if reason := reason_to_skip(client, scenario, words):
                left_out.append(f"{client.label}, {scenario.name}: {reason}")
            else:
                able.append(client)
        for number in range(words.rounds):
            for client in able[:: -1 if number % 2 else 1]:
                if number and client.speed != "fast" and not everything:
                    continue
                say(f"round {number + 1}, {scenario.title}: {client.label}", end=" … ")
                if scenario.drained:
                    run = measure_workers(scenario)
                else:
                    run = measure(client, pythons[client.name], scenario, limit_s)
                runs.append({"client": client.name, "scenario": scenario.name, "round": number, **run})
                say(f"{run['wall_s']:.0f} s" + (f", FAILED: {run['failure']}" if "failure" in run else ""))
    return runs, left_out


def say(text: str, end: str = "\n") -> None:
    """Progress, apart from the result."""
    print(text, end=end, file=sys.stderr, flush=True)


def main() -> None:
    """Set up, measure, print, write."""
    words = read_words()
    words.rounds = words.rounds or (1 if words.quick else 2)
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the mock server, one for the client")
    began_s = time.monotonic()
    build_mock()
    names = words.only or (QUICK_CLIENTS if words.quick else tuple(CLIENTS))
    chosen = words.scenario or [s.name for s in SCENARIOS if s.quick or not words.quick]
    pythons, versions, left_out = set_up([CLIENTS[name] for name in names])
    clients = [CLIENTS[name] for name in names if name in pythons]
    runs, skipped = measure_all(clients, [s for s in SCENARIOS if s.name in chosen], pythons, words)
    left_out += [*skipped, *(f"{name}: {why}" for name, why in NOT_AVAILABLE.items())]
    labels = {name: CLIENTS[name].label for name in names}
    facts = [f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"]
    facts += [f"{labels[name]}: {version}" for name, version in versions.items()]
    add_memory(runs)
    grids, notes = build_grids(runs, labels), build_notes(runs, labels, left_out)
    print("\n".join(facts))
    print_rich(grids, notes)
    say(f"took {time.monotonic() - began_s:.0f} s")
    if words.markdown:
        words.markdown.write_text(to_markdown(grids, notes, facts), "utf-8")
    if words.json:
        words.json.write_text(
            json.dumps({"facts": facts, "runs": runs, "left_out": left_out}, indent=1), "utf-8"
        )
    if words.plot:
        words.plot.write_text(plot.draw(runs, labels), "utf-8")


if __name__ == "__main__":
    main()
