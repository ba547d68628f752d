"""The fuzz tier: what users, servers, files and machines may send, by hypothesis, bounded, by a printed seed.

`make test-fuzz` draws a new seed and prints it; `make test-fuzz SEED=…` repeats a run. `.ci/run` always gives
one seed, so that whether a change lands is a matter of the change. Each test is asked in three rounds, whose
seeds follow on each other. A round of a test takes about 5 seconds of CPU time at most: of the profile's
examples, or of fewer by its own `@settings(max_examples=…)`.
"""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import HealthCheck, Phase, core, settings

EXAMPLES = 300
ROUNDS = 3

# Without a database, so that a seed alone repeats a run; without timing, which says something of the machine.
settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
)
settings.load_profile("fuzz")


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--hypothesis-seed") or os.environ.get("FUZZ_SEED")
    # In the environment, so that workers draw from the same one.
    os.environ["FUZZ_SEED"] = str(given or secrets.randbelow(10**9))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.fixturenames.append("fuzz_round")
    metafunc.parametrize("fuzz_round", range(ROUNDS), scope="session")


def pytest_runtest_setup(item: pytest.Item) -> None:
    assert isinstance(item, pytest.Function)
    core.global_force_seed = int(os.environ["FUZZ_SEED"]) + item.callspec.params["fuzz_round"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seed = os.environ["FUZZ_SEED"]
    terminalreporter.write_line(f"fuzz seed {seed}; to repeat this run: make test-fuzz SEED={seed}")


@pytest.fixture(scope="session")
def seed() -> int:
    """The run's seed, for what draws by itself."""
    return int(os.environ["FUZZ_SEED"])
