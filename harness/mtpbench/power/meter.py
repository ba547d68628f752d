"""Which source meters a point's GPUs: the embedded engine, this node's sampler, or none with the reason."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from mtpbench.power.log import PowerLog, identity_fault, parse, samples
from mtpbench.power.source import Probe
from mtpbench.records import Deployment, Point, PowerSample

INTERVAL_S = 0.1
SIMULATED = "simulated"
READY_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0
DCGM_VARIABLE = "MTPBENCH_DCGM_URL"
"""Names a DCGM exporter's metrics page, for nodes where NVML can't be used."""


class Meter:
    """Meters one point after the other; sources are probed for each and never mixed.

    `source` and `reason` go into the point's facts: exactly one of them says something. `probes` lists
    every source that was looked for, with its scope or why it is not there, and `notes` what a reader of
    the figures should know besides.

    Args:
        directory: where the sampler's files stay; by default they go with the next point.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.source = "none"
        self.reason: str | None = "nothing was metered yet"
        self.probes: tuple[Probe, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._directory = directory
        self._owners: dict[int, str] = {}
        self._process: SamplerProcess | None = None
        self._log: PowerLog | None = None

    def start(self, deployment: Deployment, point: Point) -> None:
        """Begin to read the deployment's GPUs, where they can be read."""
        self._process = self._log = None
        self.probes = self.notes = ()
        if point.simulation is not None:
            # The embedded engine tells its power with its counters, which the sampler scrapes anyway.
            self.source, self.reason = SIMULATED, None
            self.probes = (Probe(source=SIMULATED, says=SIMULATED, scope="gpu"),)
            return
        self.source = "none"
        try:
            gpus = held_gpus(deployment)
            self._owners = {meter: owner for meter, (_, owner) in enumerate(gpus)}
            process = SamplerProcess([gpu for gpu, _ in gpus], INTERVAL_S, self._directory)
        except (ValueError, OSError) as why:
            self.reason = str(why)
            return
        self._process = process
        self._tell(process.log())
        if self.reason is not None:
            process.end()
            process.remove()
            self._process = None

    def stop(self) -> None:
        """Read once more and end."""
        if self._process is None:
            return
        ended = self._process.end()
        self._log = self._process.log()
        self._process.remove()
        self._process = None
        if ended:
            self.notes += (f"the power sampler died: {ended}",)
        if fault := identity_fault(self._log):
            self.source, self.reason = "none", fault

    def samples(self, origin: float) -> list[PowerSample]:
        """What was read, in seconds since `origin` (a `time.perf_counter()` value); else empty."""
        if self._log is None or self.reason is not None:
            return []
        # Both clocks may start at different moments on some systems; their difference does not move.
        shift = time.monotonic() - time.perf_counter()
        return samples(self._log, origin + shift, self._owners)

    def _tell(self, log: PowerLog) -> None:
        self.probes = log.probes
        if found := log.gpu_probe:
            self.source, self.reason = found.says, None
            for probe in log.probes:
                self.notes += (f"power: {probe.source}: {probe.reason or probe.says}",)
        else:
            absent = [probe.reason or "" for probe in log.probes if probe.source != "grace"]
            self.reason = "; ".join(absent) or "no source of GPU power was looked for"


class SamplerProcess:
    """This node's sampler (`power.agent`), started and ready; it ends by itself when this process does.

    Args:
        gpus: NVML indices or UUIDs.
        interval_s: between two ticks.
        directory: where its file stays; a temporary one, gone once it was read, by default.

    Raises:
        OSError: it could not be started, or was not ready in time.
    """

    def __init__(self, gpus: list[str], interval_s: float, directory: Path | None = None) -> None:
        self._kept = directory is not None
        folder = directory or Path(tempfile.mkdtemp(prefix="mtpbench-power-"))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"power-{time.time_ns()}.jsonl"
        command = [sys.executable, "-m", "mtpbench.power.agent", "--out", str(self.path)]
        command += ["--interval", str(interval_s), "--gpus", ",".join(gpus)]
        if url := os.environ.get(DCGM_VARIABLE):
            command += ["--dcgm", url]
        self.pid, self._input, output = _spawn(command, self.path.with_suffix(".err"))
        self._gone = False
        ready, _, _ = select.select([output], [], [], READY_TIMEOUT_S)
        word = os.read(output, 64) if ready else b""
        os.close(output)
        if not word:
            self.end()
            raise OSError(f"sampler_failed: not ready in {READY_TIMEOUT_S:g} s: {self._last_words()}")

    def log(self) -> PowerLog:
        """What it wrote until now."""
        return parse(self.path.read_text("utf-8"))

    def end(self) -> str | None:
        """Let it read once more and end; how it had died, or None where it ended well."""
        if self._gone:
            return None
        with contextlib.suppress(OSError):
            os.close(self._input)
        status = _wait(self.pid, END_TIMEOUT_S)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
        self._gone = True
        code = os.waitstatus_to_exitcode(status)
        return None if code == 0 else f"exit {code}: {self._last_words()}"

    def remove(self) -> None:
        """Delete its file where it was a temporary one."""
        if not self._kept:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def _last_words(self) -> str:
        errors = self.path.with_suffix(".err")
        lines = errors.read_text("utf-8", "replace").strip().splitlines() if errors.exists() else []
        return lines[-1] if lines else "no message"


def held_gpus(deployment: Deployment) -> list[tuple[str, str]]:
    """(NVML index or UUID, process) of every GPU that a deployment on this node holds, idle ones too.

    CUDA_VISIBLE_DEVICES translates: GPU 0 of a process is the first that the variable names.

    Raises:
        ValueError: it holds none, or the variable names fewer GPUs than are needed, or MIG slices.
    """
    owners: dict[int, list[str]] = {}
    for process in deployment.processes:
        for gpu in process.gpus:
            names = owners.setdefault(gpu, [])
            names += [process.name] * (process.name not in names)
    # A GPU that several processes share is one GPU: its energy belongs to all of them together.
    wanted = sorted(owners)
    if not wanted:
        raise ValueError("no_gpu: the deployment holds no GPU")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = [str(gpu) for gpu in range(max(wanted) + 1)] if shown is None else shown.split(",")
    words = [word.strip() for word in words]
    if len(words) <= max(wanted) or not all(_names_gpu(words[gpu]) for gpu in wanted):
        raise ValueError(
            f"no_gpu: CUDA_VISIBLE_DEVICES={shown}: indices or UUIDs of {len(wanted)} whole GPUs are needed"
        )
    return [(words[gpu], "+".join(owners[gpu])) for gpu in wanted]


def _names_gpu(word: str) -> bool:
    return word.isdigit() or word.startswith("GPU-")


def _spawn(command: list[str], errors: Path) -> tuple[int, int, int]:
    """Start a process in a session of its own; its id, its input and its output."""
    child_in, told = os.pipe()
    heard, child_out = os.pipe()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, child_in, 0),
                (os.POSIX_SPAWN_DUP2, child_out, 1),
                (os.POSIX_SPAWN_OPEN, 2, str(errors), flags, 0o644),
            ],
            setsid=True,
        )
    except OSError:
        os.close(told)
        os.close(heard)
        raise
    finally:
        os.close(child_in)
        os.close(child_out)
    return pid, told, heard


def _wait(pid: int, seconds: float) -> int | None:
    """The status of a process, or None where it has not ended in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    return None
