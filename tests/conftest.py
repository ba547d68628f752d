"""Points and sweeps that many tests need."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says something of the machine, not of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Under nohup every process of the tests would inherit that SIGHUP is ignored: one that is to end by it would
# be waited for without end.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def sweeps() -> Path:
    return REPOSITORY / "sweeps"


MINIMAL_SWEEP = """\
sweep: tiny
question: Does it pay?
model: {path: some/model, served_name: m, precision: fp4}
hardware: gb200-nvl72
engine:
  name: simulated
  clock: scaled
  speed: 5
  flags: {all: {stream-interval: 4}}
workload: {isl: 64, osl: 32}
measurement: {warmup_per_slot: 1, requests_per_slot: 6, min_requests: 6, min_window_s: 0.1}
arms:
  off:
  mtp: {draft_tokens: 3, acceptance: golden}
topologies:
  - {aggregated: 1xTP4, concurrency: [1, 2]}
"""


@pytest.fixture
def write_sweep(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes a sweep file, by default the minimal one, with some text replaced."""

    def write(*replacements: tuple[str, str], text: str = MINIMAL_SWEEP) -> Path:
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the sweep"
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the minimal sweep; its results on the virtual clock lie in `results` beside it."""
    from typer.testing import CliRunner

    from mtpbench.cli import app

    path = tmp_path_factory.mktemp("simulated") / "tiny.yaml"
    path.write_text(MINIMAL_SWEEP, "utf-8")
    words = ["run", str(path), "--simulate", "--results", str(path.parent / "results")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return path
