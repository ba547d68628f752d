"""Things that take minutes to make, kept outside the tree under a hash of what they are made from."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

READY = ".ready"
KEY_DIGITS = 12


class BuildError(Exception):
    """Something that an engine needs could not be made; the message has the last lines of its log."""


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """`$MTPBENCH_CACHE`, else `mtpbench` in the user's cache folder."""
    if chosen := environment.get("MTPBENCH_CACHE"):
        return Path(chosen).absolute()
    home = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(home) / "mtpbench"


def cached(name: str, ingredients: Sequence[str | bytes], build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled, made now unless it was made from the same ingredients before.

    A build that was cut short is begun again; two processes do not build the same thing at once.

    Args:
        name: what it is, the readable part of the folder's name.
        ingredients: everything that it is made from.
        build: fills the empty folder it is given, which never moves (virtual environments hold their path).

    Raises:
        BuildError: from `build`.
    """
    digest = hashlib.sha256()
    for item in ingredients:
        raw = item.encode() if isinstance(item, str) else item
        digest.update(len(raw).to_bytes(8, "little") + raw)
    folder = cache_root() / f"{name}-{digest.hexdigest()[:KEY_DIGITS]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f"{folder.name}.lock")):
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            (folder / READY).touch()
    return folder


def call(words: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a program quietly, its output appended to `log`.

    Raises:
        BuildError: it can't be run or fails.
    """
    with log.open("ab") as output:
        output.write(f"$ {' '.join(map(str, words))}\n".encode())
        output.flush()
        try:
            code = subprocess.run(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                check=False,
            ).returncode
        except OSError as error:
            raise BuildError(f"{words[0]} can't be run: {error.strerror}") from error
    if code:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-25:])
        raise BuildError(f"{Path(words[0]).name} failed with exit code {code}; the end of {log}:\n{tail}")


def make_environment(folder: Path, log: Path) -> Path:
    """A virtual environment of the Python that runs this; returns its interpreter."""
    call((sys.executable, "-m", "venv", folder), log)
    return folder / "bin" / "python"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
