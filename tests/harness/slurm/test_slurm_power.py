"""Power of GPUs on the nodes of a Slurm job, on stand-ins for Slurm's programs and NVIDIA's library."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import fake_slurm
import pytest

from measured import make_point
from mtpbench.deployment import meter_at
from mtpbench.errors import RunError
from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.records import Deployment, Process
from mtpbench.slurm import executor as executor_module
from mtpbench.slurm.allocation import allocation_here
from mtpbench.slurm.executor import SlurmSite
from mtpbench.slurm.job_steps import StepOptions


def deployment(*held: tuple[str, int, tuple[int, ...]]) -> Deployment:
    processes = tuple(
        Process(name=name, role="decode", argv=("x",), node=node, gpus=gpus) for name, node, gpus in held
    )
    return Deployment(
        key="k",
        processes=processes,
        front=processes[0].name,
        front_port="http",
        model_name="m",
        gpus=6,
        nodes=3,
    )


@pytest.fixture
def site(fake: Path) -> SlurmSite:
    return SlurmSite(allocation_here(os.environ), StepOptions(python=sys.executable))


async def test_the_gpus_of_every_node_are_metered_by_a_step_there(
    on_standin: pytest.MonkeyPatch, fake: Path, site: SlurmSite, tmp_path: Path
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "gpus 8")  # those of the job are 4 to 7
    made = deployment(("prefill-0", 0, (0, 1, 2, 3)), ("decode-0", 2, (0, 1)))
    point = make_point()
    async with await meter_at(site, made, point, tmp_path / "start") as meter:
        assert (str(meter.source), meter.reason) == ("nvml energy counter, instant power, GPU scope", None)
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(0.5)
        await meter.end()
    energy = measure_energy(meter.samples(origin), Window(start_s=0.1, end_s=0.4), 6, 9.0, 5.0, meter.source)
    assert energy.mean_power_w_per_gpu == pytest.approx((900 + 1000 + 1100 + 1200 + 900 + 1000) / 6, rel=0.1)
    # The job has two more GPUs on the second node, which draw power too.
    assert energy.unused_gpus == 2
    assert energy.unused_energy_j == pytest.approx((1100 + 1200) * 0.3, rel=0.1)
    words = [words for words in fake_slurm.calls(fake, "srun") if "--job-name=power-sampler" in words]
    assert sorted(words[2] for words in words) == ["--nodelist=n0", "--nodelist=n2"]
    assert all("--gres=gpu:4" in each for each in words)
    assert fake_slurm.living(fake) == []
    assert {p.name for p in (tmp_path / "start").glob("*.jsonl")} == {
        "power-node0.jsonl",
        "power-node2.jsonl",
    }


async def test_a_node_that_does_not_answer_is_why_nothing_is_metered(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(*_: object) -> None:
        raise RunError("node n2 did not answer the roll call")

    monkeypatch.setattr(executor_module, "call_roll", silent)
    meter = await meter_at(site, deployment(("a", 2, (0,))), make_point(), tmp_path)
    assert str(meter.reason) == "node n2 did not answer the roll call"
