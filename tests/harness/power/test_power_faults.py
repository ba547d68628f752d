"""Every energy rule, provoked through the real nvidia-ml-py and the real sampler process on the stand-in."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.power.log import PowerLog, identity_fault, parse, samples, unread
from mtpbench.records import Energy, Reason

WINDOW = Window(start_s=0.3, end_s=2.6)
LENGTH_S = WINDOW.duration_s
MAX_GAP_S = 1.0
RUN_S = 3.2
HUNG_S = 1.4

SOUND = {
    "two_gpus": "",
    "gh200": "name GH200 gpus 1",
    "average": "no_instant 1",
    "no_counter": "no_counter 1",
    "counter_only": "no_instant 1 no_power 1",
    "slow_counter": "update_ms 250",
}
FAULTS = {
    "gpu_lost": "at 900 lost 1",
    "counter_reset": "at 1200 reset 0",
    "counter_frozen": "at 500 freeze 0",
    "power_frozen": "no_counter 1 at 500 freeze 1",
    "power_mismatch": "scale 0.8",  # far beyond what a busy machine adds to a counter's steps
    "gpu_swapped": "at 300 swap 1",
}
REFUSED = {
    "mig": "mig 1",
    "no_gpu": "gpus 1",
    "no_meter": "no_counter 1 no_instant 1 no_power 1",
    "shared_module": "name GB200 no_gpu_scope 1",
    "mixed_scopes": "hopper 1",
}
KILLED, STOPPED = "killed", "stopped"


@dataclass(frozen=True)
class Seen:
    """What the sampler wrote in each case, and when one was killed, stopped and let go on (monotonic)."""

    logs: dict[str, PowerLog]
    killed_s: float
    resumed_s: float


@pytest.fixture(scope="module")
def seen(start_sampler, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All cases side by side: the rules are about time, and time is what tests have little of."""
    folder = tmp_path_factory.mktemp("power")
    cases = {KILLED: "", STOPPED: "", **SOUND, **FAULTS, **REFUSED}
    running = {
        name: start_sampler(folder / name, words, "--gpus", "0" if name == "gh200" else "0,1")
        for name, words in cases.items()
    }
    for process in running.values():
        assert process.stdout.readline() == b'{"ready": true}\n'
    time.sleep(0.5)
    running[KILLED].kill()
    killed_s = time.monotonic()
    running[STOPPED].send_signal(signal.SIGSTOP)
    time.sleep(HUNG_S)
    running[STOPPED].send_signal(signal.SIGCONT)
    resumed_s = time.monotonic()
    time.sleep(RUN_S - 0.5 - HUNG_S)
    for name, process in running.items():
        process.communicate(timeout=20)
        assert process.returncode == (-signal.SIGKILL if name == KILLED else 0)
    logs = {name: parse((folder / name).read_text()) for name in cases}
    return Seen(logs=logs, killed_s=killed_s, resumed_s=resumed_s)


@pytest.fixture
def logs(seen: Seen) -> dict[str, PowerLog]:
    return seen.logs


def measured(log: PowerLog, gpus: int = 2, window: Window = WINDOW) -> Energy:
    owners = {0: "prefill-0", 1: "decode-0"}
    found = samples(log, log.ticks[0].monotonic_s, owners)
    return measure_energy(found, window, gpus, 1000.0, 400.0, log.gpu_probe.source, MAX_GAP_S)


def test_the_counter_of_every_gpu_is_the_energy(logs):
    got = measured(logs["two_gpus"])
    assert got.reason is None
    assert got.source_text == "nvml energy counter, instant power, GPU scope"
    assert got.energy_j_by_gpu == {
        "prefill-0/0": pytest.approx(500 * LENGTH_S, rel=0.04),
        "decode-0/1": pytest.approx(600 * LENGTH_S, rel=0.04),
    }
    assert got.energy_j == pytest.approx(sum(got.energy_j_by_gpu.values()))
    assert got.integral_j == pytest.approx(1100 * LENGTH_S, rel=0.01)
    assert got.prefill_joules_per_input_token == pytest.approx(got.energy_j_by_gpu["prefill-0/0"] / 600)
    assert got.decode_joules_per_output_token == pytest.approx(got.energy_j_by_gpu["decode-0/1"] / 400)
    assert (got.grace_energy_j, got.grace_reason) == (None, "no_grace")


def test_a_grace_hopper_module_is_one_meter_and_says_so(logs):
    got = measured(logs["gh200"], gpus=1)
    assert got.source_text == "nvml energy counter, instant power, module scope (GPU and its Grace)"
    assert got.energy_j == pytest.approx(650 * LENGTH_S, rel=0.04)


def test_without_instant_power_the_one_second_average_is_held_against_the_counter(logs):
    got = measured(logs["average"])
    assert (got.source_text, got.reason) == ("nvml energy counter, power averaged over 1 s, GPU scope", None)


def test_without_a_counter_the_integral_serves_and_says_so(logs):
    got = measured(logs["no_counter"])
    assert got.source_text == "nvml, instant power, GPU scope, integral of power"
    assert got.energy_j == pytest.approx(1100 * LENGTH_S, rel=0.01)


def test_without_power_the_counter_is_not_cross_checked_and_says_so(logs):
    got = measured(logs["counter_only"])
    assert got.source_text == "nvml energy counter, GPU scope, not cross-checked"
    assert (got.integral_j, got.reason) == (None, None)


def test_a_counter_that_is_updated_every_quarter_second_gives_the_same(logs):
    assert measured(logs["slow_counter"]).energy_j == pytest.approx(1100 * LENGTH_S, rel=0.04)


@pytest.mark.parametrize("reason", [name for name in FAULTS if name != "gpu_swapped"])
def test_a_fault_makes_the_energy_null_with_its_code(logs, reason):
    got = measured(logs[reason])
    assert (got.energy_j, got.joules_per_output_token, got.energy_j_by_gpu) == (None, None, {})
    assert got.reason == Reason(code=reason)


def test_a_gpu_that_became_another_one_is_found(logs):
    assert identity_fault(logs["two_gpus"]) is None
    assert identity_fault(logs["gpu_swapped"]) == unread(
        "gpu_swapped",
        "GPU 1 was GPU-00000000-0000-0000-0000-000000000001 "
        "and became GPU-00000000-0000-0000-0001-000000000001",
    )


@pytest.mark.parametrize("code", REFUSED)
def test_what_can_not_be_metered_is_refused_with_its_code(logs, code):
    log = logs[code]
    assert log.gpu_probe is None
    assert log.ticks == ()
    assert log.probes[0].reason.code == code


def test_what_a_killed_sampler_wrote_stays_and_does_not_pass_for_the_window(seen: Seen):
    log = seen.logs[KILLED]
    assert log.ended is None
    assert len(log.ticks) > 5
    end_s = seen.killed_s - log.ticks[0].monotonic_s
    assert measured(log, window=Window(start_s=0.1, end_s=end_s + 0.5)).reason.code == "power_not_covered"
    assert measured(log, window=Window(start_s=0.1, end_s=end_s - 0.2)).reason is None


def test_a_sampler_that_hung_leaves_a_gap(seen: Seen):
    log = seen.logs[STOPPED]
    end_s = seen.resumed_s - log.ticks[0].monotonic_s + 0.3
    assert measured(log, window=Window(start_s=0.1, end_s=end_s)).reason.code == "power_gap"


def test_the_slow_facts_are_written_down_about_every_second(logs):
    states = [state for _, found in logs["two_gpus"].states for state in found if state.meter == 1]
    assert len(states) >= 2
    assert (states[0].temperature_c, states[0].limit_w, states[0].clock_reasons) == (41, 700.0, 4)
    assert states[0].other_scope_w == pytest.approx(750, abs=0.1)


def test_the_file_of_a_sampler_does_not_grow_in_memory(start_sampler, tmp_path: Path):
    process = start_sampler(tmp_path / "log", "gpus 4", "--interval", "0.005")
    assert process.stdout.readline() == b'{"ready": true}\n'
    sizes = []
    for _ in range(2):
        time.sleep(0.5)
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("this system does not tell a process's memory")
        sizes.append(int(status.read_text().split("VmRSS:")[1].split()[0]))
    process.communicate(timeout=20)
    assert sizes[1] - sizes[0] < 1024  # kB, over some hundred ticks
