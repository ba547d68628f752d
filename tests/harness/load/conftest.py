"""What a load of real processes must not leave behind."""

from __future__ import annotations

import tempfile

import pytest
from drives import processes


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
