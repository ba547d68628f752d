"""Installs Debian's Slurm packages for `make test-slurm` where they are missing, then runs a command.

    python tests/slurm/prepare.py [-- COMMAND …]

Needs root, or sudo that asks for no password, unless all is installed. No service is started: the tests start
daemons of their own. Where the packages are neither there nor installable it says NOT RUN and why, and exits
with 3; it never passes by skipping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

NOT_RUN = 3
INSTALL_LIMIT_S = 900
PACKAGES: Mapping[str, str] = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
"""By a program of theirs; slurmdbd also needs PLUGIN, which has none."""
PLUGIN = "slurm-wlm-mysql-plugin"
DAEMONS = frozenset(("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd"))
SYSTEM_PATH = "/usr/sbin:/sbin"
"""Daemons are there, and it is not on the PATH of everyone."""

# Debian's packages start their services unless this file says no; what was there before comes back.
INSTALL = """
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$policy.before-mtpbench"; fi
restore() {
  rm -f "$policy"
  if [ -e "$policy.before-mtpbench" ]; then mv "$policy.before-mtpbench" "$policy"; fi
}
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\\nexit 101\\n' > "$policy" && chmod 755 "$policy" || exit 1
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"; }
install "$@" || { apt-get -q update && install "$@"; }
"""


class NotRun(Exception):
    """The tests can't run here; says why."""


def find_missing(path: str) -> tuple[str, ...]:
    """The packages that are not installed, told by their programs."""
    missing = {package for program, package in PACKAGES.items() if shutil.which(program, path=path) is None}
    if not any(Path("/usr/lib").glob("*/slurm-wlm/accounting_storage_mysql.so")):
        missing.add(PLUGIN)
    return tuple(sorted(missing))


def install(packages: Sequence[str], path: str) -> None:
    """Install Debian packages without starting a service.

    Raises:
        NotRun: it is not possible here, or failed; with the end of apt-get's output.
    """
    names = ", ".join(packages)
    if shutil.which("apt-get", path=path) is None:
        raise NotRun(f"{names} are missing, and this machine has no apt-get to install them with")
    root = () if os.geteuid() == 0 else ("sudo", "-n")
    if root and not _succeeds(("sudo", "-n", "true"), path):
        raise NotRun(f"{names} are missing: run `sudo apt-get install {' '.join(packages)}` first")
    before = running_daemons()
    words = (*root, "sh", "-c", INSTALL, "sh", *packages)
    done = subprocess.run(
        words,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise NotRun(f"apt-get could not install {names}:\n{tail}")
    if started := {name for _, name in running_daemons() - before}:
        raise NotRun(f"installing started {', '.join(sorted(started))}, which should not be; stop them")


def running_daemons() -> frozenset[tuple[int, str]]:
    """Daemons that belong to no private cluster, by process id."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text().strip()
            private = b"\0SLURM_CONF=" in b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if name in DAEMONS and not private:
            found.add((int(entry.name), name))
    return frozenset(found)


def _succeeds(words: Sequence[str], path: str) -> bool:
    try:
        done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def main(words: Sequence[str]) -> int:
    """Install what is missing, then become the command; the exit code where there is none."""
    command = words[1:] if words[:1] == ["--"] else words
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    try:
        if missing := find_missing(path):
            print(f"installing {', '.join(missing)} (half a minute)", file=sys.stderr, flush=True)
            install(missing, path)
            if missing := find_missing(path):
                raise NotRun(f"{', '.join(missing)} are still missing after their installation")
    except (NotRun, subprocess.TimeoutExpired) as why:
        sys.stderr.write(f"NOT RUN: {why}\n")
        return NOT_RUN
    if command:
        os.execvpe(command[0], list(command), {**os.environ, "PATH": path})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
