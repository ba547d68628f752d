"""What sampling 4 GPUs costs: the sampler process beside a 1 Hz nvidia-smi loop, on the stand-in library.

    .venv/bin/python benchmarks/power_sampler.py [SECONDS] [RUNS]

CPU is user and system seconds per second of the whole process tree, from the kernel's accounting. The loop is
what most tables were made with: a process for each reading, here one that starts, asks NVML through the same
bindings for the same GPUs and prints. (nvidia-smi itself is a C program and not on this machine; a C program
that asks the stand-in the same is measured too, as the least that a loop of processes can cost.) The stand-in
answers at once: what a driver adds to each call is not in these figures.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mtpbench.power.log import parse

SOURCE = Path(__file__).resolve().parent.parent / "tests" / "standin" / "fakenvml.c"
GPUS = 4
PYTHON_LOOP = """
import time, pynvml as n
n.nvmlInit()
for i in range(n.nvmlDeviceGetCount()):
    h = n.nvmlDeviceGetHandleByIndex(i)
    print(time.time(), n.nvmlDeviceGetUUID(h), n.nvmlDeviceGetPowerUsage(h))
"""
C_LOOP = r"""
#include <stdio.h>
int nvmlInit_v2(void), nvmlDeviceGetHandleByIndex_v2(unsigned, void **);
int nvmlDeviceGetPowerUsage(void *, unsigned *);
int main(void) {
    nvmlInit_v2();
    void *gpu; unsigned milliwatts;
    for (unsigned i = 0; !nvmlDeviceGetHandleByIndex_v2(i, &gpu); i++)
        if (!nvmlDeviceGetPowerUsage(gpu, &milliwatts)) printf("%u, %.2f W\n", i, milliwatts / 1e3);
}
"""


def main() -> None:
    seconds, runs = (float(w) for w in (sys.argv[1:] + ["10", "3"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = prepare(folder)
        rows: dict[str, Callable[[], tuple[float, str]]] = {
            f"sampler, every {ms} ms": partial(sampler, folder, environment, ms / 1e3, seconds)
            for ms in (100, 250)
        }
        rows["loop of processes, 1 Hz, Python"] = lambda: loop(
            [sys.executable, "-c", PYTHON_LOOP], environment, seconds
        )
        rows["loop of processes, 1 Hz, C"] = lambda: loop([str(folder / "ask")], environment, seconds)
        print(f"{GPUS} GPUs on the stand-in library, {seconds:g} s, median of {runs:g} runs\n")
        print(f"{'':34}{'CPU s/s':>10}{'of a core':>12}{'readings/s':>12}")
        first = None
        for label, measure in rows.items():
            found = [measure() for _ in range(int(runs))]
            cpu = statistics.median(cpu for cpu, _ in found)
            first = first or cpu
            print(f"{label:34}{cpu:10.5f}{cpu:12.2%}{found[-1][1]:>12}   {cpu / first:6.2f}x")


def prepare(folder: Path) -> dict[str, str]:
    """Compile the stand-in and the C loop; the environment that finds them."""
    compiler = os.environ.get("CC", "cc")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    (folder / "ask.c").write_text(C_LOOP)
    subprocess.run([compiler, "-O2", "-o", folder / "ask", folder / "ask.c", library], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "MTPBENCH_FAKE_NVML": f"gpus {GPUS}"}


def sampler(
    folder: Path, environment: dict[str, str], interval_s: float, seconds: float
) -> tuple[float, str]:
    """CPU seconds per second once it is ready, and readings per second and GPU."""
    out = folder / f"log-{time.time_ns()}"
    command = [sys.executable, "-m", "mtpbench.power.agent", "--out", str(out), "--interval", str(interval_s)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    before, begun = cpu_s(process.pid), time.monotonic()
    time.sleep(seconds)
    used, lasted = cpu_s(process.pid) - before, time.monotonic() - begun
    process.communicate()
    return used / lasted, f"{len(parse(out.read_text()).ticks) / lasted:.1f}"


def loop(command: list[str], environment: dict[str, str], seconds: float) -> tuple[float, str]:
    """The same of a process started every second, its start included: that is what the loop costs."""
    before, begun, count = children_s(), time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        count += 1
        time.sleep(max(0.0, begun + count - time.monotonic()))
    lasted = time.monotonic() - begun
    return (children_s() - before) / lasted, f"{count / lasted:.1f}"


def cpu_s(pid: int) -> float:
    """User and system time of a live process, in nanosecond accounting."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
