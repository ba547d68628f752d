"""A fake Slurm on PATH for the tests of what runs inside a job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import fake_slurm
import pytest


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a fake Slurm; this process is the batch script of a job on all its four nodes."""
    folder = tmp_path / "fake"
    environment = fake_slurm.install(folder)
    for name in [*os.environ]:
        if name.startswith("SLURM") and name not in environment:
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield folder
    for group in fake_slurm.living(folder):
        os.killpg(group, signal.SIGKILL)
