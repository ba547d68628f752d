"""The stand-in for NVIDIA's library, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

import standin as nvidia


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `libnvidia-ml.so.1`."""
    return nvidia.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def on_standin(standin: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Processes that are started now find the stand-in; samplers read it every 50 ms."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin))
    monkeypatch.setenv("MTPBENCH_FAKE_NVML", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("MTPBENCH_DCGM_URL", raising=False)
    monkeypatch.setattr("mtpbench.power.meter.INTERVAL_S", 0.05)
    return monkeypatch
