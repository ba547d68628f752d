"""What a load of real processes must not leave behind, and short pauses for those of this process."""

from __future__ import annotations

import tempfile

import pytest
from drives import processes

from mtpbench.load import refusals


@pytest.fixture
def nothing_is_left(tmp_path, monkeypatch):
    """No process and no folder of a load outlives its test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    assert list(folder.iterdir()) == []
    assert processes() == {}


@pytest.fixture(autouse=True)
def shares_pause_shortly(monkeypatch):
    """Shares of a load that run in this process wait for a few milliseconds after a refused request."""
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(refusals, "LONGEST_PAUSE_S", 0.004)
