"""Installs Debian's Chromium and its driver for `make test-browser` where missing, then runs a command.

    python tests/browser/prepare.py [-- COMMAND …]

Chromium comes from Debian (root, or sudo that asks for no password); Playwright, pinned in
requirements/browser.lock, lands in `$MTPBENCH_CACHE` (by default `mtpbench` in the user's cache folder)
and is made once. COMMAND finds both by PATH and PYTHONPATH. Where one is neither there nor installable it
says NOT RUN and why, and exits with 3; it never passes by skipping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.setup.cache import BuildError, cached, call

NOT_RUN = 3
INSTALL_LIMIT_S = 900
LOCK = Path(__file__).resolve().parents[2] / "requirements" / "browser.lock"
PACKAGES = ("chromium", "fonts-dejavu-core")
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"; }
install "$@" || { apt-get -q update && install "$@"; }
"""


class NotRun(Exception):
    """The tests can't run here; says why."""


def install_chromium() -> None:
    """Install Debian's Chromium.

    Raises:
        NotRun: it is not possible here, or failed; with the end of apt-get's output.
    """
    if shutil.which("apt-get") is None:
        raise NotRun("chromium is missing, and this machine has no apt-get to install it with")
    root = () if os.geteuid() == 0 else ("sudo", "-n")
    if root and (
        shutil.which("sudo") is None or subprocess.run(("sudo", "-n", "true"), check=False).returncode
    ):
        raise NotRun(f"chromium is missing: run `sudo apt-get install {' '.join(PACKAGES)}` first")
    done = subprocess.run(
        (*root, "sh", "-c", INSTALL, "sh", *PACKAGES),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if done.returncode or shutil.which("chromium") is None:
        tail = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise NotRun(f"apt-get could not install chromium:\n{tail}")


def install_driver() -> Path:
    """A folder with Playwright for this interpreter, nothing of it in the environment of the tests.

    Raises:
        NotRun: the package index does not give it; with the end of pip's output.
    """

    def build(folder: Path) -> None:
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        call((*pip, "--require-hashes", "--target", folder / "site", "-r", LOCK), folder / "pip.log")

    try:
        return cached("browser", (LOCK.read_bytes(), sys.version), build) / "site"
    except BuildError as error:
        raise NotRun(f"playwright could not be installed: {error}") from error


def main(words: Sequence[str]) -> int:
    """Install what is missing, then become the command; the exit code where there is none."""
    command = words[1:] if words[:1] == ["--"] else words
    try:
        if shutil.which("chromium") is None:
            print("installing chromium (a minute)", file=sys.stderr, flush=True)
            install_chromium()
        driver = install_driver()
    except (NotRun, subprocess.TimeoutExpired) as why:
        sys.stderr.write(f"NOT RUN: {why}\n")
        return NOT_RUN
    if command:
        paths = os.pathsep.join(filter(None, (str(driver), os.environ.get("PYTHONPATH"))))
        os.execvpe(command[0], list(command), {**os.environ, "PYTHONPATH": paths})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
