"""Every file of results/ is read, written and locked through here.

What is wrong with a stored file is a `StoreError` with its name, whatever it is. Temporary files and locks
are never a link that someone planted, and those of dead writers are removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtpbench.errors import MtpbenchError, StoreError

MOST_BYTES = 1 << 28
"""No file that is read whole is larger; what is larger was not written by us."""
_SHOWN = 300
"""Characters of another library's message that are passed on."""


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Makes whatever goes wrong while a stored file is read a `StoreError` with the file's name.

    A file that another program wrote or damaged can break its parser in any way, so any exception counts.
    The block reads one file, and computes nothing.

    Raises:
        StoreError: the file can't be read; a better message of the block itself is passed on.
    """
    try:
        yield
    except MtpbenchError:
        raise
    except OSError as error:
        reason = error.strerror or _shortened(error)
        raise StoreError(f"{path}: can't be read ({reason})", path=path, reason=reason) from error
    except Exception as error:
        reason = f"damaged: {_shortened(error)}"
        raise StoreError(f"{path}: can't be read ({reason})", path=path, reason="damaged") from error


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def is_there(path: Path) -> bool:
    """Returns whether something is in a place, be it a link that leads nowhere.

    Raises:
        StoreError: that can't be seen: a folder above it may not be entered.
    """
    with guarded(path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def check_file(path: Path) -> None:
    """Checks that a path leads to a file: a pipe in its place would be waited for without an end.

    Raises:
        StoreError: it does not; says what is there.
    """
    with guarded(path):
        _check_mode(path, os.stat(path).st_mode)


def read_bytes(path: Path) -> bytes:
    """Reads a whole stored file.

    Raises:
        StoreError: it can't be read, is no file, or is larger than `MOST_BYTES`.
    """
    with guarded(path), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _check_mode(path, status.st_mode)
        if status.st_size > MOST_BYTES:
            reason = f"{status.st_size:,} bytes; at most {MOST_BYTES:,} are read"
            raise StoreError(f"{path}: {reason}", path=path, reason=reason)
        return file.read(MOST_BYTES)


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        reason = "a folder, not a file" if stat.S_ISDIR(mode) else "not a file"
        raise StoreError(f"{path}: can't be read ({reason})", path=path, reason=reason)


def create_file(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet: neither a file nor a link in its place is ever written to.

    Raises:
        OSError: it can't be written, or something is in its place.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(content)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where there is none.

    Raises:
        OSError: it can't be made.
        StoreError: a link is in its place: what is written there would land elsewhere.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise StoreError(f"{path}: is a symbolic link, where a folder is needed; remove it", path=path)


def own_mark(joint: str = ".") -> str:
    """Returns a mark for the names of what this process writes: its host, its id, and a part no one knows."""
    return f"{socket.gethostname()}{joint}{os.getpid()}.{secrets.token_hex(4)}"


def is_alive(pid: int) -> bool:
    """Returns whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that dead writers of this machine left in a folder."""
    mark = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d{{1,9}})(\.[0-9a-f]{{8}})?")
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := mark.fullmatch(entry.name)) and not is_alive(int(match[1])):
                with suppress(OSError):
                    os.unlink(entry.path)


def replace_file(path: Path, content: str | bytes, *, sync: bool = True, parents: bool = False) -> None:
    """Writes a file beside its place, then renames it over its place; no reader ever sees half of a file.

    Args:
        path: its place; a link there is replaced, not followed.
        content: what it holds.
        sync: whether to wait until the disk has it; what is made anew at any time need not. The leftovers of
            dead writers in its folder are then removed too.
        parents: whether to make the folders that it lies in.

    Raises:
        StoreError: it can't be written; what was in its place is still there.
    """
    beside = path.with_name(f".{path.name}.{own_mark()}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if sync:
            remove_leftovers(path.parent)
        create_file(beside, content.encode() if isinstance(content, str) else content)
        if sync:
            sync_path(beside)
        beside.rename(path)
        if sync:
            sync_path(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(f"{path}: can't be written ({error.strerror})") from error


def sync_path(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds the sweep's lock: two runs on one machine would disturb each other's figures.

    Raises:
        StoreError: another run holds it, and the message names its process id; or its file can't be used.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        where = path if path.is_symlink() else directory
        why = "a symbolic link; remove it" if path.is_symlink() else error.strerror
        raise StoreError(f"{where}: can't be written ({why})") from error
    with open(handle, "r+b", buffering=0) as lock:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise StoreError(f"{path}: is no lock of ours (not a file, or linked elsewhere); remove it")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock.read(20).decode("ascii", "replace").strip()
            raise StoreError(
                f"{directory}: another run is writing here (process {holder or 'unknown'}); "
                "wait for it or stop it"
            ) from None
        except OSError as error:
            raise StoreError(f"{path}: can't be locked ({error.strerror})") from error
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        except OSError as error:
            raise StoreError(f"{path}: can't be written ({error.strerror})") from error
        yield
