"""mtpbench's own client, by the program ours.py, run by the interpreter that runs the benchmark."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from scenarios import Scenario

from clients.base import Client, read_json_line
from clients.plain_aiohttp import load_words

PROGRAM = Path(__file__).resolve().parents[1] / "ours.py"


def _command(python: Path, url: str, scenario: Scenario, folder: Path) -> Sequence[str]:
    return [str(python), str(PROGRAM), "--url", url, *load_words(scenario)]


CLIENT = Client(
    name="ours",
    label="mtpbench",
    prepare=lambda: Path(sys.executable),
    version=lambda python: f"mtpbench {importlib.metadata.version('mtpbench')}",
    command=_command,
    read=read_json_line,
)
