"""vLLM started by other words than `vllm serve`, as its CPU build needs."""

from __future__ import annotations

from pathlib import Path

from mtpbench import hardware
from mtpbench.engines.registry import engine_of
from mtpbench.sweep import load_sweep


def test_the_real_demo_starts_vllm_by_its_module_and_names_no_path_of_a_machine(sweeps: Path) -> None:
    sweep = load_sweep(sweeps / "demo-real.yaml")
    off, mtp = (
        engine_of(ladder[0]).deploy(ladder[0], hardware.lookup("cpu")).processes[0]
        for ladder in sweep.deployments
    )
    assert off.argv[:3] == ("nice", "-n", "10")
    assert off.argv[3:6] == ("@{env:MTPBENCH_VLLM_PYTHON}", "-m", "vllm.entrypoints.openai.api_server")
    assert off.argv[off.argv.index("--model") + 1] == "@{env:MTPBENCH_CRAFTED}/mimo-deep"
    assert not [word for word in (*off.argv, *mtp.argv) if word.startswith("/")]
    assert sweep.info.confounds == ()
