"""Deployments as steps of a Slurm job, on stand-ins for Slurm's programs; tests/slurm has the real ones."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import fake_slurm
import pytest

from mtpbench import hardware
from mtpbench.deployment import LiveDeployment
from mtpbench.engines import engine_of
from mtpbench.errors import InputError, PortInUse, StartError
from mtpbench.executors import choose_ports, port_block
from mtpbench.records import Container, Deployment, File, Point, PointResult, Probe, Process
from mtpbench.run import plan_run, run_live
from mtpbench.slurm import executor as executor_module
from mtpbench.slurm.allocation import Node, allocation_here, refuse_loopback
from mtpbench.slurm.executor import SlurmExecutor, SlurmSite, mpi_programs
from mtpbench.slurm.job_steps import JobStep, StepOptions, private_variables, srun_command
from mtpbench.store import SweepStore, read_raw, read_sweep
from mtpbench.sweep import load_sweep

SERVER = textwrap.dedent(
    """
    import http.server, os, signal, sys
    print("on", os.environ["SLURMD_NODENAME"], "with", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), sys.exit(0)))
    if "die" in sys.argv:
        print("CUDA error: out of imagination", flush=True)
        sys.exit(7)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(b'{"data": [{"id": "m"}]}')
        def log_message(self, *a): pass
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
    """
)
OPTIONS = StepOptions(python=sys.executable)


def server(name: str, node: int, gpus: tuple[int, ...], *behaviour: str) -> Process:
    return Process(
        name=name,
        role="aggregated",
        argv=("@{python}", "@{dir}/server.py", f"@{{host:{name}}}", f"@{{port:{name}/http}}", *behaviour),
        files=(File(path="@{dir}/server.py", text=SERVER),),
        node=node,
        gpus=gpus,
        ports=("http",),
        ready=Probe(port="http", path="/health", model="m"),
    )


def deployment(*processes: Process) -> Deployment:
    return Deployment(
        key="k",
        processes=processes,
        front=processes[0].name,
        front_port="http",
        model_name="m",
        gpus=4,
        nodes=1 + max(process.node for process in processes),
    )


@pytest.fixture
def site(fake: Path) -> SlurmSite:
    return SlurmSite(allocation_here(os.environ), OPTIONS)


@pytest.fixture
def executor(site: SlurmSite, tmp_path: Path) -> SlurmExecutor:
    return site.executor(tmp_path / "a $(touch broken) 'b\" c")  # type: ignore[return-value]


class Log:
    def __init__(self) -> None:
        self.results: list[PointResult] = []

    def ladder_started(self, deployment: object, points: object) -> None: ...
    def point_started(self, point: Point) -> None: ...
    def point_progress(self, point: Point, progress: object) -> None: ...
    def point_finished(self, point: Point, result: PointResult) -> None:
        self.results.append(result)

    def trouble(self, message: str) -> None: ...


def test_a_disaggregated_sweep_runs_as_steps_on_three_nodes(
    write_sweep, fake: Path, site: SlurmSite, tmp_path: Path
) -> None:
    split = (
        "- {aggregated: 1xTP4, concurrency: [1, 2]}",
        "- {prefill: 2xTP4, decode: 1xTP4, concurrency: [2]}",
    )
    sweep = load_sweep(write_sweep(split))
    store = SweepStore(tmp_path / "results", sweep.info)
    store.open()
    log = Log()
    asyncio.run(run_live(plan_run(sweep.points[:1], store), store, log, asyncio.Event(), site))
    (result,) = log.results
    assert {reason.code for reason in result.reasons} <= {"client_saturated", "not_settled"}
    (stored,) = read_sweep(store.directory).points
    provenance = stored.provenance
    assert provenance.executor == "slurm"
    assert provenance.notes[0] == "Slurm job 41 on n0, n1, n2, n3; load from node n0"
    assert provenance.environment["SLURM_JOB_ID"] == "41"
    assert {s.process for s in read_raw(stored.directory).counters} == {"prefill-0", "prefill-1", "decode-0"}
    hosts = {name: words[words.index("--host") + 1] for name, words in provenance.command_lines.items()}
    assert hosts["router"] == hosts["prefill-0"] == "127.0.0.1"
    assert hosts["prefill-1"] == "127.0.0.2"
    assert hosts["decode-0"] == "127.0.0.3"
    assert fake_slurm.living(fake) == []
    steps = {words[0].partition("=")[2].partition(".")[0]: words for words in fake_slurm.calls(fake, "srun")}
    assert set(steps) == {"roll-call", "router", "prefill-0", "prefill-1", "decode-0"}
    assert "--gres=none" in steps["router"]
    assert "--gres=gpu:4" in steps["decode-0"]
    assert "--nodelist=n2" in steps["decode-0"]
    assert "--overlap" in steps["decode-0"]


async def test_workers_of_one_node_get_their_own_gpus(executor: SlurmExecutor, fake: Path) -> None:
    """Both steps ask for all GPUs: asked for two each, Slurm would give both the same first two."""
    made = deployment(server("a", 1, (0, 1)), server("b", 1, (2, 3)), server("c", 0, (0, 1, 2, 3)))
    async with LiveDeployment(made, executor, 30) as live:
        assert await live.unhealthy() is None
        said = {handle.process.name: handle.log_tail() for handle in live.handles}
        assert live.handles[0].owns_port(live.placement.ports["a", "http"]) is None
        assert live.url("a", "http").startswith("http://127.0.0.2:")
    # What a step sees are not always 0 to 3: a job may hold a part of a node.
    assert "on n1 with 4,5" in said["a"]
    assert "on n1 with 6,7" in said["b"]
    assert "on n0 with 4,5,6,7" in said["c"]
    assert "asked to end" in (executor.directory / "a.log").read_text()
    assert fake_slurm.living(fake) == []


async def test_a_step_that_dies_at_start_is_a_dead_process(executor: SlurmExecutor) -> None:
    with pytest.raises(StartError, match=r"exit code 7\).*\n(.*\n)*.*out of imagination"):
        async with LiveDeployment(deployment(server("a", 0, (), "die")), executor, 30):
            pass


async def test_a_killed_server_is_noticed_with_its_signal(executor: SlurmExecutor, fake: Path) -> None:
    async with LiveDeployment(deployment(server("a", 2, ())), executor, 30) as live:
        (group,) = fake_slurm.living(fake)
        os.killpg(group, signal.SIGKILL)
        await eventually(lambda: live.dead() is not None)
        assert "a ended with killed by SIGKILL" in str(live.dead())


async def eventually(condition, timeout_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_program_that_is_not_there_is_said_by_its_step(executor: SlurmExecutor) -> None:
    made = deployment(dataclasses.replace(server("a", 0, ()), argv=("no-such-engine",)))
    with pytest.raises(StartError, match=r"exit code 2(.*\n)*.*no-such-engine: No such file"):
        async with LiveDeployment(made, executor, 10):
            pass


@pytest.mark.parametrize("controller", ["answers", "is away"])
async def test_a_server_that_ignores_sigterm_is_killed(
    executor: SlurmExecutor, fake: Path, monkeypatch: pytest.MonkeyPatch, controller: str
) -> None:
    monkeypatch.setattr(executor_module, "STOP_GRACE_S", 0.3)
    async with LiveDeployment(deployment(server("a", 0, (), "stubborn")), executor, 30):
        assert len(fake_slurm.living(fake)) == 1
        if controller == "is away":
            fake_slurm.set_job(fake, "")
    assert fake_slurm.living(fake) == []


async def test_a_step_whose_srun_was_killed_is_ended_all_the_same(
    executor: SlurmExecutor, fake: Path
) -> None:
    async with LiveDeployment(deployment(server("a", 0, (), "stubborn")), executor, 30) as live:
        os.killpg(live.handles[0].group, signal.SIGKILL)
        await eventually(lambda: live.dead() is not None)
        assert len(fake_slurm.living(fake)) == 1
    assert fake_slurm.living(fake) == []


def test_steps_die_with_a_run_that_is_killed(fake: Path, tmp_path: Path) -> None:
    """In salloc nobody else would end them."""
    program = textwrap.dedent(
        """
        import asyncio, os, sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import test_slurm_executor as t
        async def main():
            site = t.SlurmSite(t.allocation_here(os.environ), t.OPTIONS)
            made = t.deployment(t.server("a", 0, ()))
            async with t.LiveDeployment(made, site.executor(Path(sys.argv[1])), 30):
                print("up", flush=True)
                time.sleep(600)
        asyncio.run(main())
        """
    )
    run = subprocess.Popen(
        (sys.executable, "-c", program, str(tmp_path / "x"), str(Path(__file__).parent)),
        stdout=subprocess.PIPE,
    )
    assert run.stdout
    assert run.stdout.readline() == b"up\n"
    assert len(fake_slurm.living(fake)) == 1
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 10
    while fake_slurm.living(fake) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert fake_slurm.living(fake) == []


async def test_an_mpi_program_over_two_nodes_is_one_step(executor: SlurmExecutor, fake: Path) -> None:
    """Ranks of one worker find each other only when one srun starts them all."""
    words = ("sh", "-c", 'echo "rank $SLURM_PROCID on $SLURMD_NODENAME"; exec sleep 600')
    parts = [
        Process(name=f"decode-0.r{i}", role="decode", argv=words, node=1 + i, gpus=(0, 1), mpi_tasks=2)
        for i in range(2)
    ]
    made = deployment(server("router", 0, ()), *parts)
    assert mpi_programs(made) == {"decode-0.r0": tuple(parts)}
    async with LiveDeployment(made, executor, 30) as live:
        await eventually(lambda: live.handles[1].log_tail().count("rank") == 4)
        (srun,) = [call for call in fake_slurm.calls(fake, "srun") if "decode" in call[0]]
        assert {"--nodes=2", "--nodelist=n1,n2", "--ntasks=4", "--ntasks-per-node=2"} <= set(srun)
        assert {"--mpi=pmix", "--kill-on-bad-exit=1"} <= set(srun)
        os.killpg(fake_slurm.living(fake, "decode")[0], signal.SIGKILL)
        await eventually(lambda: all(h.ended() for h in live.handles if "decode" in h.process.name))
        assert "killed by SIGKILL" in str(live.dead())
    assert fake_slurm.living(fake) == []


def test_a_multi_node_worker_gets_rank_leader_and_ports(write_sweep, site: SlurmSite, tmp_path: Path) -> None:
    engine = "  name: simulated\n  clock: scaled\n  speed: 5\n  flags: {all: {stream-interval: 4}}"
    sweep = load_sweep(write_sweep((engine, "  name: vllm"), ("1xTP4", "1xTP8")))
    point = sweep.points[0]
    made = engine_of(point).deploy(point, hardware.lookup(point.hardware))
    executor = site.executor(tmp_path)
    placed = executor.place(made)
    first, second = (executor_module.resolve(process, placed) for process in made.processes)
    for process, rank in ((first, "0"), (second, "1")):
        words = process.argv
        assert words[words.index("--node-rank") + 1] == rank
        assert words[words.index("--master-addr") + 1] == "127.0.0.1"
        assert words[words.index("--master-port") + 1] == str(placed.ports["aggregated-0.r0", "dist"])
    assert placed.hosts["aggregated-0.r1"] == "127.0.0.2"


def test_a_folder_that_nodes_do_not_share_is_said_before_anything_starts(
    executor: SlurmExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtpbench.slurm.allocation.secrets.token_hex", lambda _: "other")
    monkeypatch.setattr("mtpbench.slurm.allocation.replace_file", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"node n0 .* does not see .* all nodes share"):
        executor.place(deployment(server("a", 0, ())))


def test_addresses_of_a_network_interface(fake: Path, tmp_path: Path) -> None:
    allocation = allocation_here(os.environ)
    named = SlurmSite(allocation, dataclasses.replace(OPTIONS, interface="lo"))
    placed = named.executor(tmp_path / "x").place(deployment(server("a", 2, ())))
    assert placed.hosts == {"a": "127.0.0.1"}
    unknown = SlurmSite(allocation, dataclasses.replace(OPTIONS, interface="ib7"))
    with pytest.raises(InputError, match=r"node n0: network interface 'ib7' has no IPv4 .* it has lo"):
        unknown.executor(tmp_path / "y").place(deployment(server("a", 2, ())))


def test_what_does_not_fit_into_the_allocation_is_refused(write_sweep, site: SlurmSite) -> None:
    point = load_sweep(write_sweep()).points[0]
    big = deployment(*(server(f"a{i}", i, ()) for i in range(5)))
    assert "needs 5 nodes; job 41 has 4" in str(site.obstacle(big, point))
    real = dataclasses.replace(point, simulation=None)
    wide = deployment(server("a", 0, tuple(range(8))))
    assert "needs 8 GPUs on a node; job 41 has 4 on each" in str(site.obstacle(wide, real))
    assert site.obstacle(wide, point) is None


def test_neighbouring_jobs_choose_from_other_ports() -> None:
    blocks = [port_block(str(job)) for job in range(1000, 1090)]
    assert len({number for block in blocks for number in block}) == sum(map(len, blocks))
    assert all(20_000 <= number < 32_768 for block in blocks for number in block)


def test_ports_of_a_job_are_never_alike_and_taken_ones_are_passed_over() -> None:
    block = port_block("41")
    made = deployment(*(server(f"a{i}", i % 2, ()) for i in range(100)))
    hosts = {process.name: "127.0.0.77" for process in made.processes}
    with socket.socket() as taken:
        taken.bind(("127.0.0.77", block[0]))
        ports = choose_ports(made, hosts, block=range(block[0], block[0] + 100))
        assert len(set(ports.values())) == 100
        assert block[0] not in ports.values()
        with pytest.raises(PortInUse, match=f"port {block[0]} on 127.0.0.77 is taken"):
            choose_ports(made, hosts, block[0], block)


def test_an_address_that_means_this_machine_alone_is_refused() -> None:
    nodes = [Node(name="n0", address="127.0.1.1", visible_gpus=())]
    refuse_loopback(nodes)
    nodes.append(Node(name="n1", address="10.0.0.2", visible_gpus=()))
    with pytest.raises(InputError, match=r"node n0: .*network_interface"):
        refuse_loopback(nodes)


def test_engines_run_in_their_image_and_the_harness_bare() -> None:
    options = dataclasses.replace(
        OPTIONS, container=True, mounts=("/m:/m",), container_flags=("--container-writable",)
    )
    engine = Process(
        name="a",
        role="decode",
        argv=("vllm", "serve"),
        env={"NCCL_X": "1 2", "HF_TOKEN": "hidden", "MY_SETTING": "hidden too"},
        container=Container(image="repo#image:1"),
    )
    as_in_the_sweep = dataclasses.replace(engine, env={**engine.env, "MY_SETTING": "@{env:MINE}"})
    step = JobStep(
        name="a",
        nodes=("n0",),
        process=engine,
        gpus=4,
        visible="0,1",
        mounts=("/results/x y",),
        private=private_variables(as_in_the_sweep),
    )
    words = srun_command(step, options)
    assert "--container-env=HF_TOKEN,MY_SETTING" in words
    assert "--container-image=repo#image:1" in words
    assert "--container-mounts=/m:/m,/results/x y:/results/x y" in words
    assert "--container-writable" in words
    assert words[-5:] == ["env", "NCCL_X=1 2", "CUDA_VISIBLE_DEVICES=0,1", "vllm", "serve"]
    assert not any("hidden" in word for word in words)
    bare = dataclasses.replace(engine, argv=(sys.executable, "-m", "x"), env={})
    assert not any(
        "container" in word for word in srun_command(dataclasses.replace(step, process=bare), options)
    )
    own = dataclasses.replace(options, image="/images/mine.sqsh")
    assert "--container-image=/images/mine.sqsh" in srun_command(step, own)
    with pytest.raises(InputError, match="comma or a colon"):
        srun_command(dataclasses.replace(step, mounts=("/a,b",)), options)


def test_without_gres_none_is_asked_for() -> None:
    process = Process(name="a", role="decode", argv=("x",))
    step = JobStep(name="a", nodes=("n0",), process=process, gpus=4)
    assert "--gres=gpu:gb200:4" in srun_command(step, dataclasses.replace(OPTIONS, gres="gpu:gb200"))
    words = srun_command(step, dataclasses.replace(OPTIONS, gres=None))
    assert not any(word.startswith("--gres") for word in words)
    json.dumps(words)
