"""Records what this machine's Slurm prints, for the tests of the parsers.

    python tests/slurm/record.py [--no-accounting]

Starts a private cluster, lets jobs end in every way that it can provoke, and writes what squeue, scontrol and
sacct print to `tests/fixtures/slurm/VERSION/` (1 minute). Run it on a machine with the version in question.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [
        str(Path(__file__).resolve().parents[up]) + folder for up, folder in ((1, ""), (2, "/harness"))
    ]

from mtpbench.slurm.listings import SACCT_FORMAT, SQUEUE_FORMAT
from slurm.cluster import PrivateSlurm, wait_until

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "slurm"
ODD = 'a|b $(x) "q" \'é\n7|RUNNING|.line'
"""A job name that tries to be a record of its own."""


def record(slurm: PrivateSlurm, folder: Path, accounting: bool) -> None:
    """Run the jobs and write what the programs say of them."""
    squeue = ("squeue", "-h", "-a", "-r", "-t", "all", "-O", SQUEUE_FORMAT)
    failed = slurm.submit("exit 7", "--job-name=failed", "-t", "5")
    names = {
        "odd": slurm.submit("exit 0", f"--job-name={ODD}", "--array=0-1"),
        "segv": slurm.submit("kill -SEGV $$", "--job-name=segv"),
        "shell137": slurm.submit("bash -c 'kill -9 $$'; exit $?", "--job-name=shell137"),
        "limit": slurm.submit("sleep 300", "--job-name=limit", "-t", "10"),
        "never": slurm.submit("true", "--job-name=never", "-d", f"afterok:{failed}"),
        "dropped": slurm.submit(
            "true", "--job-name=dropped", "--kill-on-invalid-dep=yes", "-d", f"afterok:{failed}"
        ),
        "held": slurm.submit("true", "--job-name=held", "-H"),
        "requeued": slurm.submit("sleep 300", "--job-name=requeued", "-t", "10"),
        "cancelled": slurm.submit("sleep 300", "--job-name=cancelled"),
        "throttled": slurm.submit("sleep 300", "--job-name=throttled", "--array=0-3%2", "-t", "1-2"),
        "lost": slurm.submit("sleep 300", "--job-name=lost", "-N2", "--no-requeue", "-w", "n[1-2]"),
        "again": slurm.submit("sleep 300", "--job-name=again", "-w", "n2", "-t", "10"),
        "waiting": slurm.submit("true", "--job-name=waiting", "-N4", "--exclusive", "-t", "10"),
    }
    slurm.run("sbatch", "--job-name=toomany", "-N9", "--wrap=true", check=False)  # 24.11 refuses it
    for name in ("lost", "again", "cancelled", "limit", "requeued"):
        slurm.wait_for_state(names[name], "RUNNING")
    slurm.end_time_limit(names["limit"])
    wait_until(lambda: slurm.state(failed) == "FAILED", "failure", 20)
    (folder / "squeue-running.txt").write_text(slurm.run(*squeue) + "\n")
    slurm.run("scancel", names["cancelled"])
    slurm.run("scontrol", "requeue", names["requeued"])
    slurm.kill_node("n2")
    (folder / "squeue-requeued.txt").write_text(slurm.run(*squeue) + "\n")
    slurm.wait_for_state(names["lost"], "NODE_FAIL")
    slurm.wait_for_state(names["limit"], "TIMEOUT")
    (folder / "squeue-ended.txt").write_text(slurm.run(*squeue) + "\n")
    (folder / "scontrol.txt").write_text(slurm.run("scontrol", "-o", "show", "job") + "\n")
    if not accounting:
        return
    history = ("sacct", "-X", "-nP", "--duplicates", "-o", SACCT_FORMAT, "-S", "now-1days")
    wait_until(lambda: "NODE_FAIL" in slurm.run(*history), "the history", 30)
    (folder / "sacct.txt").write_text(slurm.run(*history) + "\n")


def record_errors(slurm: PrivateSlurm, folder: Path) -> None:
    """What the programs say when something is wrong: a command, its exit status, its words."""
    wrong = (
        ("squeue", "-h", "-j", "999999"),
        ("scontrol", "-o", "show", "job", "999999"),
        ("sbatch", "-p", "none", "--wrap=true"),
        ("sbatch", "--gpus-per-node=9", "--wrap=true"),
        ("sbatch", "--segment=3", "-N4", "--wrap=true"),
        ("sbatch", "-N9", "--wrap=true"),
        ("scancel", "999999"),
    )
    lines = [_said(slurm, words) for words in wrong]
    with slurm.frozen():
        frozen = (
            ("squeue", "-h"),
            ("scontrol", "-o", "show", "job", "1"),
            ("sbatch", "--wrap=true"),
            ("sinfo",),
        )
        lines += ["# the controller frozen", *(_said(slurm, words) for words in frozen)]
    (folder / "errors.txt").write_text("\n".join(lines) + "\n")


def _said(slurm: PrivateSlurm, words: tuple[str, ...]) -> str:
    done = subprocess.run(
        words, env=slurm.env, cwd=slurm.root, capture_output=True, text=True, check=False, timeout=60
    )
    return f"$ {' '.join(words)}\n{done.stdout}{done.stderr}exit {done.returncode}"


def main() -> None:
    """Record into the folder of this machine's version."""
    accounting = "--no-accounting" not in sys.argv
    with tempfile.TemporaryDirectory() as root, PrivateSlurm(Path(root), accounting=accounting) as slurm:
        version = slurm.run("sbatch", "--version").split()[-1]
        folder = FIXTURES / version
        folder.mkdir(parents=True, exist_ok=True)
        record(slurm, folder, accounting)
        record_errors(slurm, folder)
        print(f"recorded Slurm {version} in {folder}")


if __name__ == "__main__":
    main()
