"""Processes as steps of a real Slurm's jobs: placed, reached, and every one of them gone at the end."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import standin as nvidia
from slurm.cluster import PrivateSlurm, wait_until

SWEEP = """\
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
  - {prefill: 2xTP4, decode: 1xTP4, concurrency: [2]}
"""

INSIDE = textwrap.dedent(
    """
    import asyncio, os, signal, subprocess, sys, time
    from pathlib import Path
    from mtpbench.deployment import LiveDeployment
    from mtpbench.errors import StartError
    from mtpbench.slurm import executor as executor
    from mtpbench.slurm.executor import SlurmSite
    from mtpbench.slurm.job_steps import StepOptions
    from mtpbench.metrics.energy import measure_energy
    from mtpbench.power.meter import Meter
    from mtpbench.records import Deployment, File, Probe, Process
    from mtpbench.metrics.window import Window
    from mtpbench.slurm.allocation import allocation_here

    SERVER = '''
    import http.server, os, signal, sys
    print("on", os.environ["SLURMD_NODENAME"], "with", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), sys.exit(0)))
    if "die" in sys.argv:
        sys.exit(7)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(b'{"data": [{"id": "m"}]}')
        def log_message(self, *a): pass
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
    '''

    def server(name, node, gpus=(), *behaviour):
        words = ("@{python}", "@{dir}/server.py", f"@{{host:{name}}}", f"@{{port:{name}/http}}", *behaviour)
        return Process(name=name, role="aggregated", argv=words, node=node, gpus=gpus, ports=("http",),
            files=(File(path="@{dir}/server.py", text=SERVER),), ready=Probe(port="http", model="m"))

    def deployment(*processes):
        return Deployment(key="k", processes=processes, front=processes[0].name, front_port="http",
            model_name="m", gpus=4, nodes=1 + max(p.node for p in processes))

    folder = Path(sys.argv[1])
    allocation = allocation_here(os.environ)
    site = SlurmSite(allocation, StepOptions(python=sys.executable, mpi="none"))

    def live(*processes):
        return LiveDeployment(deployment(*processes), site.executor(folder / "x"), 40)

    def steps():
        text = subprocess.run(["squeue", "-s", "-h", "-j", allocation.raw_id, "-o", "%j"],
            capture_output=True, text=True).stdout
        return sorted(name.partition(".")[0] for name in text.split() if name not in ("batch", "extern"))

    def log(name):
        # What a step prints comes in pieces: a line is there when its end is.
        path = folder / "x" / f"{name}.log"
        until = time.monotonic() + 10
        while not path.read_text().endswith("\\n") and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        return path.read_text()

    async def until(condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.05)
    """
)


class Inside:
    """Runs a test's lines inside a job, and says what they printed."""

    def __init__(self, folder: Path, slurm: PrivateSlurm) -> None:
        self.folder, self.slurm = folder, slurm

    def start(self, body: str, *words: str) -> str:
        main = f"async def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nasyncio.run(main())\n"
        program = self.folder / "inside.py"
        program.write_text(INSIDE + main)
        command = shlex.join((sys.executable, str(program), str(self.folder)))
        return self.slurm.submit(f"exec {command}", "--ntasks-per-node=1", "--gres=gpu:gb200:4", *words)

    def run(self, body: str, *words: str) -> str:
        job = self.start(body, *words)
        self.slurm.wait_for_state(job, "COMPLETED", "FAILED", "CANCELLED", limit_s=90)
        said = self.said(job)
        assert self.slurm.state(job) == "COMPLETED", said
        return said

    def said(self, job: str) -> str:
        log = self.slurm.root / "out" / f"{job}.log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def inside(tmp_path: Path, cluster: PrivateSlurm) -> Inside:
    folder = tmp_path / "a $(touch broken) 'b\" c%j"
    folder.mkdir()
    return Inside(folder, cluster)


def left_in(folder: Path) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words and str(os.getpid()) != pid:
            found.append(words)
    return found


def mtpbench(*words: str) -> str:
    return shlex.join((sys.executable, "-m", "mtpbench", *words))


def provenances(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in results.glob("tiny/*/provenance.json")]


def test_a_disaggregated_sweep_inside_a_batch_job(inside: Inside) -> None:
    sweep, results = inside.folder / "tiny.yaml", inside.folder / "results"
    sweep.write_text(SWEEP)
    command = mtpbench("run", str(sweep), "--executor", "slurm", "--results", str(results))
    job = inside.slurm.submit(
        command, "--nodes=3", "--ntasks-per-node=1", "--gres=gpu:gb200:4", "--exclusive"
    )
    inside.slurm.wait_for_state(job, "COMPLETED", "FAILED", limit_s=120)
    said = (inside.slurm.root / "out" / f"{job}.log").read_text()
    found = provenances(results)
    assert len(found) == 2, said
    for provenance in found:
        assert provenance["executor"] == "slurm"
        assert provenance["notes"][0].startswith(f"Slurm job {job} on n")
        assert set(provenance["command_lines"]) == {"router", "prefill-0", "prefill-1", "decode-0"}
    for path in results.glob("tiny/*/result.json"):
        codes = {reason["code"] for reason in json.loads(path.read_text())["reasons"]}
        assert codes <= {"client_saturated", "not_settled"}, said
    assert left_in(inside.folder) == []


def test_the_same_in_the_shell_of_salloc(inside: Inside) -> None:
    sweep, results = inside.folder / "tiny.yaml", inside.folder / "results"
    sweep.write_text(SWEEP.replace("prefill: 2xTP4, decode: 1xTP4", "aggregated: 1xTP4"))
    command = mtpbench("run", str(sweep), "--executor", "slurm", "--results", str(results), "--only", "off")
    done = subprocess.run(
        ("salloc", "--nodes=1", "--ntasks-per-node=1", "--gres=gpu:gb200:4", *shlex.split(command)),
        env=inside.slurm.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (provenance,) = provenances(results)
    assert provenance["executor"] == "slurm", done.stdout + done.stderr
    assert "which is no node of the job" in provenance["notes"][0]


def test_workers_of_one_node_get_their_own_gpus_and_end_when_asked(inside: Inside) -> None:
    said = inside.run(
        """
        async with live(server("a", 1, (0, 1)), server("b", 1, (2, 3)), server("c", 0)) as it:
            print(steps(), it.dead(), await it.unhealthy() is None)
        print(steps(), log("a"), log("b"), log("c"))
        """,
        "--nodes=2",
    )
    assert "['a', 'b', 'c'] None True" in said
    assert "with 0,1\n" in said
    assert "with 2,3\n" in said
    assert "with None\n" in said
    assert said.count("asked to end") == 3
    assert "[] " in said
    assert left_in(inside.folder) == []


def test_a_part_of_a_node_is_not_taken_for_the_whole(inside: Inside) -> None:
    """Two jobs on one node: the second holds GPUs 2 and 3, which its workers call 0 and 1."""
    first = inside.slurm.submit("sleep 100", "--nodes=1", "--nodelist=n1", "--gres=gpu:gb200:2", "--mem=100")
    inside.slurm.wait_for_state(first, "RUNNING")
    said = inside.run(
        """
        async with live(server("a", 0, (0,)), server("b", 0, (1,))) as it:
            print(allocation.gpus_per_node, log("a"), log("b"))
        """,
        *("--nodes=1", "--nodelist=n1", "--gres=gpu:gb200:2", "--mem=100"),
    )
    assert "on n1 with 2\n" in said
    assert "on n1 with 3\n" in said
    inside.slurm.run("scancel", first)


def test_gpus_of_two_nodes_are_metered_by_steps_on_one_clock(inside: Inside) -> None:
    nvidia.build(inside.folder)
    said = inside.run(
        """
        os.environ |= {"LD_LIBRARY_PATH": str(folder), "MTPBENCH_FAKE_NVML": "gpus 4"}
        made = deployment(server("prefill-0", 0, (0, 1)), server("decode-0", 1, (0, 1, 2, 3)))
        async with Meter(site.metered(made, folder / "x"), folder / "x") as meter:
            print("source", meter.source, meter.reason)
            print("steps", steps())
            await meter.begin()
            origin = time.perf_counter()
            await asyncio.sleep(2)
            await meter.end()
        window = Window(start_s=0.4, end_s=1.6)
        energy = measure_energy(meter.samples(origin), window, 6, 9.0, 5.0, meter.source)
        print("watts", round(energy.mean_power_w_per_gpu), "unused", energy.unused_gpus, energy.reason)
        print("notes", meter.notes[-1])
        print("left", steps())
        """,
        "--nodes=2",
    )
    assert "source nvml energy counter, instant power, GPU scope None" in said
    assert "steps ['power-sampler', 'power-sampler']" in said
    # (500 + 600) + (500 + 600 + 700 + 800) W by six GPUs; the first node has two that nobody holds.
    (watts,) = re.findall(r"^watts (\d+) unused 2 None$", said, re.MULTILINE)
    assert 580 <= int(watts) <= 650
    assert "notes power: the clocks of 2 nodes are known to within" in said
    assert "left []" in said
    assert {path.name for path in (inside.folder / "x").glob("power-*.jsonl")} == {
        "power-node0.jsonl",
        "power-node1.jsonl",
    }


def test_deaths_are_told_with_their_codes(inside: Inside) -> None:
    said = inside.run(
        """
        try:
            async with live(server("a", 1, (), "die")):
                pass
        except StartError as error:
            print("START", error)
        async with live(server("a", 1)) as it:
            pids = subprocess.run(["pgrep", "-f", "server.py"], capture_output=True, text=True).stdout.split()
            own = [pid for pid in pids if "srun" not in Path(f"/proc/{pid}/cmdline").read_text()]
            for pid in own:
                os.kill(int(pid), signal.SIGKILL)
            await until(lambda: it.dead() is not None)
            print("DEAD", it.dead())
        """,
        "--nodes=2",
    )
    assert "died before the deployment was ready (exit code 7)" in said
    assert "DEAD a ended with killed by SIGKILL" in said


def test_a_step_whose_srun_was_killed_is_ended_all_the_same(inside: Inside) -> None:
    said = inside.run(
        """
        async with live(server("a", 1)) as it:
            os.killpg(it.handles[0].group, signal.SIGKILL)
            await until(lambda: it.dead() is not None)
            print("BEFORE", steps(), it.dead())
        print("AFTER", steps())
        """,
        "--nodes=2",
    )
    assert "BEFORE ['a'] a ended with killed by SIGKILL" in said
    assert "AFTER []" in said
    assert left_in(inside.folder) == []


def test_ranks_of_a_worker_over_two_nodes_are_one_step(inside: Inside) -> None:
    said = inside.run(
        """
        words = ("sh", "-c", 'echo "rank $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME"; exec sleep 600')
        parts = [Process(name=f"decode-0.r{i}", role="decode", argv=words, node=1 + i, gpus=(0, 1, 2, 3),
            mpi_tasks=2) for i in range(2)]
        async with live(server("router", 0), *parts) as it:
            await until(lambda: it.handles[1].log_tail().count("rank") == 4)
            print(steps(), log("decode-0.r0"))
        print("AFTER", steps())
        """,
        "--nodes=3",
    )
    assert "['decode-0', 'router']" in said
    for rank in range(4):
        assert f"rank {rank} of 4 on n" in said
    assert "AFTER []" in said


def test_a_task_of_an_array_ends_its_own_steps(inside: Inside) -> None:
    """Steps of an array's task go by another number than SLURM_JOB_ID."""
    body = """
        async with live(server("a", 0)) as it:
            print("JOB", allocation.job_id, steps())
        print("AFTER", steps(), log("a"))
        """
    job = inside.start(body, "--nodes=1", "--array=3", f"--output={inside.slurm.root}/out/array.log")
    log = inside.slurm.root / "out/array.log"
    wait_until(lambda: log.exists() and "AFTER" in log.read_text(), "the task's end", 60)
    said = log.read_text()
    assert f"JOB {job}_3 ['a']" in said
    assert "AFTER []" in said
    assert "asked to end" in said


@pytest.mark.parametrize("controller", ["answers", "is frozen"])
def test_a_stubborn_server_is_killed(inside: Inside, controller: str) -> None:
    # The last test of this file: after an outage Slurm needs a minute to see that the job's nodes are free.
    job = inside.start(
        """
        executor.STOP_GRACE_S = 1.0
        async with live(server("a", 1, (), "stubborn"), server("b", 0)):
            print("UP", flush=True)
            await until((folder / "go").exists)
        print("DOWN", flush=True)
        """,
        "--nodes=2",
    )
    wait_until(lambda: "UP" in inside.said(job), "the servers", 60)
    if controller == "is frozen":
        inside.slurm.freeze()
    (inside.folder / "go").write_text("")
    try:
        wait_until(lambda: "DOWN" in inside.said(job), "the end", 80)
        wait_until(
            lambda: not [line for line in left_in(inside.folder) if "server.py" in line], "no server", 5
        )
    finally:
        inside.slurm.thaw()
