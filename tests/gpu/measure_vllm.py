"""Measures MTP off, k = 1 and k = 3 on a real GPU: vLLM, a crafted DeepSeek-style model, power through NVML.

    python tests/gpu/measure_vllm.py [--vllm-python PYTHON] [--results FOLDER]

PYTHON is an interpreter that has vLLM for this GPU (by default $MTPBENCH_VLLM_PYTHON, else this one). Where
there is no GPU or no vLLM it says NOT RUN and why, and exits with 3; it never passes by skipping.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.setup import deepseek
from engines.setup.cache import cached
from mtpbench.power.nvml import NvmlSource

HERE = Path(__file__).resolve().parent
NOT_RUN = 3
SHAPE = deepseek.Shape(layers=16, experts=64, expert_width=2048)
"""About 1.8 GB of weights in bfloat16: a draft (one layer) costs a sixteenth of a step."""


def main() -> int:
    """Check, craft, run; the exit code of `mtpbench run`, or 3 where nothing could be run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm-python", default=os.environ.get("MTPBENCH_VLLM_PYTHON", sys.executable))
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args()
    if why := missing(given.vllm_python):
        sys.stderr.write(f"NOT RUN: {why}\n")
        return NOT_RUN
    crafted = cached("crafted-gpu", [repr(SHAPE).encode(), Path(deepseek.__file__).read_bytes()], craft)
    environment = {
        **os.environ,
        "MTPBENCH_CRAFTED": str(crafted),
        "MTPBENCH_VLLM_PYTHON": given.vllm_python,
    }
    command = (
        sys.executable,
        "-m",
        "mtpbench",
        "run",
        str(HERE / "vllm.yaml"),
        "--results",
        str(given.results),
    )
    return subprocess.run(command, env=environment, check=False).returncode


def missing(vllm_python: str) -> str | None:
    """What is missing for a run on a GPU, or None."""
    if why := NvmlSource(("0",)).probe().reason:
        return f"no NVIDIA GPU that can be metered ({why})"
    found = subprocess.run((vllm_python, "-c", "import vllm"), capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"{vllm_python} has no vLLM that can be imported ({last[0]})"
    return None


def craft(folder: Path) -> None:
    """The model of the sweep."""
    deepseek.craft(folder / "deepseek-v3-deep", shape=SHAPE)


if __name__ == "__main__":
    sys.exit(main())
