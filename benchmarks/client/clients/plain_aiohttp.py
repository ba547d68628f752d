"""aiohttp with uvloop and orjson, by the program aiohttp_client.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import environments
from scenarios import Scenario

from clients.base import Client, read_json_line

PROGRAM = Path(__file__).resolve().parents[1] / "programs" / "aiohttp_client.py"


def load_words(scenario: Scenario) -> list[str]:
    """The words that aiohttp_client.py and ours.py take for a load."""
    if scenario.rate_per_s:
        pace = ["--rate", str(scenario.rate_per_s)]
    else:
        pace = ["--concurrency", str(scenario.concurrency)]
    lengths = ["--osl", str(scenario.osl), "--isl", str(scenario.isl)]
    return [*pace, "--requests", str(scenario.requests), *lengths]


def _command(python: Path, url: str, scenario: Scenario, folder: Path) -> Sequence[str]:
    return [str(python), str(PROGRAM), "--url", url, *load_words(scenario)]


def _version(python: Path) -> str:
    return " + ".join(
        f"{name} {environments.version_of(python, name)}" for name in ("aiohttp", "uvloop", "orjson")
    )


CLIENT = Client(
    name="aiohttp",
    label="aiohttp + uvloop + orjson",
    prepare=lambda: environments.install("bench-aiohttp"),
    version=_version,
    command=_command,
    read=read_json_line,
)
