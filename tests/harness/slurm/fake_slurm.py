"""Stand-ins for srun, squeue, scancel and scontrol: steps are process groups of this machine.

    python fake_slurm.py PROGRAM FOLDER ARGUMENT...        what the scripts that `install` writes call

Node i has the address 127.0.0.(i+1). Like the real one, srun ends as its task did (128 and the signal), kills
its step on SIGTERM, and leaves it running when it is killed itself. What it was told is in FOLDER/calls.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NODES = ("n0", "n1", "n2", "n3")
GPUS = 4
JOB = "41"


def install(folder: Path) -> dict[str, str]:
    """Write the programs; the environment of a batch script on all nodes."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("srun", "squeue", "scancel", "scontrol", "sinfo", "sbatch"):
        words = (sys.executable, "-I", str(Path(__file__).resolve()), name, str(folder))
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NODELIST": "n[0-3]",
        "SLURM_GPUS_ON_NODE": str(GPUS),
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURMD_NODENAME": "n0",
    }


def calls(folder: Path, program: str) -> list[list[str]]:
    """What a program was called with, oldest first."""
    lines = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return [call[1:] for call in map(json.loads, lines) if call[0] == program]


def living(folder: Path, name: str = "") -> list[int]:
    """Process groups of tasks that still run, of steps whose name begins so."""
    steps = (step for step in _steps(folder).values() if step["name"].startswith(name))
    return [group for step in steps for group in step["groups"] if _runs(group)]


def set_job(folder: Path, state: str, restarts: int = 0) -> None:
    """What squeue and scontrol say of the job from now on; an empty state is no answer."""
    (folder / "job.json").write_text(json.dumps({"state": state, "restarts": restarts}))


# ------------------------------------------------------------------------------------------- the programs


def srun(folder: Path, words: list[str]) -> int:
    options: dict[str, str] = {}
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        options[name] = value
    if not words:
        return 1
    nodes, per_node = options["nodelist"].split(","), int(options.get("ntasks-per-node", "1"))
    assert len(nodes) == int(options["nodes"]), options
    assert len(nodes) * per_node == int(options["ntasks"]), options
    assert "SLURM_NTASKS_PER_NODE" not in os.environ
    number = _new_step(folder)
    tasks: list[subprocess.Popen[bytes]] = []
    for node in nodes:
        for _ in range(per_node):
            environment = {**os.environ, **_step_environment(options, node, number, len(tasks))}
            try:
                task = subprocess.Popen(words, env=environment, start_new_session=True)
            except OSError as error:
                print(f"slurmstepd: error: execve(): {words[0]}: {error.strerror}", file=sys.stderr)
                return 2
            tasks.append(task)
    record = {"name": options.get("job-name", ""), "groups": [task.pid for task in tasks]}
    (folder / "steps" / number / "step.json").write_text(json.dumps(record))
    signal.signal(signal.SIGTERM, lambda *_: _kill_all(tasks, "srun: forcing job termination"))
    for forwarded in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(forwarded, lambda number, _: _signal_all(tasks, number))
    while any(task.poll() is None for task in tasks):
        if options.get("kill-on-bad-exit") == "1" and any(task.poll() for task in tasks):
            _kill_all(tasks, "srun: error: Terminating StepId")
        time.sleep(0.01)
    codes = [task.returncode for task in tasks]
    return max(128 - code if code < 0 else code for code in codes)


def _kill_all(tasks: list[subprocess.Popen[bytes]], why: str) -> None:
    print(why, file=sys.stderr, flush=True)
    _signal_all(tasks, signal.SIGKILL)


def _signal_all(tasks: list[subprocess.Popen[bytes]], number: int) -> None:
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, number)


def _step_environment(options: dict[str, str], node: str, number: str, rank: int) -> dict[str, str]:
    gres = options.get("gres", f"gpu:{GPUS}")
    gpus = 0 if gres == "none" else int(gres.rpartition(":")[2])
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(str(4 + gpu) for gpu in range(gpus))} if gpus else {}
    return {**visible, "SLURMD_NODENAME": node, "SLURM_STEP_ID": number, "SLURM_PROCID": str(rank)}


def _new_step(folder: Path) -> str:
    for number in range(10_000):
        with contextlib.suppress(FileExistsError):
            (folder / "steps" / str(number)).mkdir(parents=True)
            return str(number)
    raise AssertionError("too many steps")


def _steps(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in (folder / "steps").glob("*/step.json"):
        with contextlib.suppress(ValueError):
            found[path.parent.name] = json.loads(path.read_text())
    return found


def _runs(group: int) -> bool:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def squeue(folder: Path, words: list[str]) -> int:
    if _is_out(folder):
        return 1
    if "--steps" not in words:
        job = _job(folder)
        print(f"{JOB}|{job['state']}|None|{job['restarts']}|0|n[0-3]|N/A|1:00|a name|.")
        for number, name, tasks in submitted(folder):
            for task in [f"_{i}" for i in range(tasks)] if tasks > 1 else [""]:
                print(f"{number}{task}|PENDING|Priority|0|0||N/A|1:00|{name}|.")
        return 0
    for number, step in _steps(folder).items():
        if any(map(_runs, step["groups"])):
            print(f"{JOB}.{number}|{step['name']}")
    return 0


def scancel(folder: Path, words: list[str]) -> int:
    if _is_out(folder):
        return 1
    if not any(word.startswith("--signal=") for word in words):
        for word in words:
            (folder / "submitted" / word.partition("_")[0]).unlink(missing_ok=True)
        return 0
    (number,) = [word.partition("=")[2] for word in words if word.startswith("--signal=")]
    steps = _steps(folder)
    for word in words:
        for group in steps.get(word.partition(".")[2], {"groups": ()})["groups"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.Signals[f"SIG{number}"])
    print("scancel: error: Kill job error on job step id 1: Invalid job id specified", file=sys.stderr)
    return 1


def sbatch(folder: Path, words: list[str]) -> int:
    """Take a job in after `FOLDER/delay_s`; FOLDER/sbatch.sh, where it is there, is run instead."""
    if (folder / "sbatch.sh").exists():
        return subprocess.run(["sh", str(folder / "sbatch.sh"), *words], check=False).returncode
    if (folder / "delay_s").exists():
        time.sleep(float((folder / "delay_s").read_text()))
    options = [line[8:].strip() for line in Path(words[-1]).read_text().splitlines() if line[:7] == "#SBATCH"]
    (name,) = [option.partition("=")[2] for option in options if option.startswith("--job-name=")]
    arrays = [match for option in options if (match := re.match(r"--array=0-(\d+)", option))]
    print(take_in(folder, name, *(int(match[1]) + 1 for match in arrays)))
    return 0


def take_in(folder: Path, name: str, tasks: int = 1) -> int:
    """A job of this name waits from now on; its number."""
    (folder / "submitted").mkdir(exist_ok=True)
    for number in range(100, 1000):
        with contextlib.suppress(FileExistsError), (folder / "submitted" / str(number)).open("x") as job:
            job.write(json.dumps([name, tasks]))
            return number
    raise AssertionError("too many jobs")


def submitted(folder: Path) -> list[tuple[int, str, int]]:
    """The jobs that wait: number, name, tasks."""
    jobs = sorted((folder / "submitted").glob("*"), key=lambda path: int(path.name))
    return [(int(path.name), *json.loads(path.read_text())) for path in jobs]


def scontrol(folder: Path, words: list[str]) -> int:
    if _is_out(folder):
        print("slurm_load_node error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    if "node" in words:
        for i, node in enumerate(NODES):
            print(f"NodeName={node} Arch=x86_64 NodeAddr=127.0.0.{i + 1} NodeHostName={node} State=IDLE")
    if "job" in words:
        print(f"JobId={JOB} JobName=x JobState=RUNNING TRES=cpu=4,node=4,gres/gpu={4 * GPUS} ExitCode=0:0")
    return 0


def _job(folder: Path) -> dict[str, Any]:
    path = folder / "job.json"
    return json.loads(path.read_text()) if path.exists() else {"state": "RUNNING", "restarts": 0}


def _is_out(folder: Path) -> bool:
    return not _job(folder)["state"]


def main(program: str, folder: str, *words: str) -> int:
    with (Path(folder) / "calls").open("a") as log:
        log.write(json.dumps([program, *words]) + "\n")
    programs = {"srun": srun, "squeue": squeue, "scancel": scancel, "scontrol": scontrol, "sbatch": sbatch}
    return programs[program](Path(folder), list(words))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
