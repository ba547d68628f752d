"""Every file of results/ is read, written and locked through here.

What is wrong with a stored file is a `StoreError` with its name, whatever it is. Temporary files and locks
are never a link that someone planted, and those of dead writers are removed by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mtpbench.errors import MtpbenchError, StoreError

MOST_BYTES = 1 << 28
"""No file that is read whole is larger; what is larger was not written by us."""
_LIMITS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_SHOWN = 300
"""Characters of another library's message that are passed on."""


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Makes whatever goes wrong while a stored file is read a `StoreError` with the file's name.

    A file that another program wrote or damaged can break its parser in any way, so any exception counts.
    The block reads one file, and computes nothing. A limit of this machine is no fault of the file and is
    passed on; pyarrow's own kind of `MemoryError` is a fault: a length that nothing could hold.

    Raises:
        StoreError: the file can't be read; a better message of the block itself is passed on.
    """
    try:
        yield
    except MtpbenchError:
        raise
    except Exception as error:
        if type(error) is MemoryError or (isinstance(error, OSError) and error.errno in _LIMITS):
            raise
        reason = (isinstance(error, OSError) and error.strerror) or "damaged"
        why = f"damaged: {_shortened(error)}" if reason == "damaged" else reason
        raise StoreError(f"{path}: can't be read ({why})", path=path, reason=reason) from error


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


def new_file(path: Path | str, *, private: bool = False, folder: int | None = None) -> BinaryIO:
    """Opens a file that is not there yet: neither a file nor a link in its place is ever written to.

    Args:
        path: its place.
        private: whether only its owner may read it, from its first byte on.
        folder: an open folder that a relative path counts from.

    Raises:
        OSError: it can't be made, or something is in its place (`FileExistsError`).
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600 if private else 0o666, dir_fd=folder), "wb")


def create_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a whole new file, as `new_file` opens it."""
    with new_file(path, private=private) as file:
        file.write(content)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where there is none.

    Raises:
        OSError: it can't be made.
        StoreError: a link is in its place: what is written there would land elsewhere.
    """
    path.mkdir(parents=True, exist_ok=True)
    if os.path.islink(path):
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


def replace_file(
    path: Path, content: str | bytes, *, sync: bool = True, parents: bool = False, private: bool = False
) -> None:
    """Writes a file beside its place, then renames it over its place; no reader ever sees half of a file.

    Args:
        path: its place; a link there is replaced, not followed.
        content: what it holds.
        sync: whether to wait until the disk has it; what is made anew at any time need not. The leftovers of
            dead writers in its folder are then removed too.
        parents: whether to make the folders that it lies in.
        private: whether only its owner may read it.

    Raises:
        StoreError: it can't be written; what was in its place is still there.
    """
    beside = path.with_name(f".{path.name}.{own_mark()}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if sync:
            remove_leftovers(path.parent)
        create_file(beside, content.encode() if isinstance(content, str) else content, private=private)
        if sync:
            sync_path(beside)
        beside.rename(path)
        if sync:
            sync_path(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        reason = error.strerror or _shortened(error)
        raise StoreError(f"{path}: can't be written ({reason})", path=path, reason=reason) from error


def claim_file(path: Path, content: str) -> bool:
    """Writes a file whole, unless something is in its place; of several writers, on any hosts, one succeeds.

    Returns:
        Whether this writer did.

    Raises:
        StoreError: it can't be written.
    """
    beside = path.with_name(f".{path.name}.{own_mark()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_file(beside, content.encode())
        sync_path(beside)
        _link(beside, path)
        sync_path(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            beside.unlink()
    return True


def _link(beside: Path, path: Path) -> None:
    """Gives a whole file its name, or writes it there where a file system knows no second names."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:
        create_file(path, read_bytes(beside))


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
        where = path if os.path.islink(path) else directory
        why = "a symbolic link; remove it" if os.path.islink(path) else error.strerror
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


def latest_number(folder: Path, pattern: re.Pattern[str]) -> int:
    """Returns the highest number that a file's name in a folder has; 0 where there is none."""
    matches = (pattern.fullmatch(path.name) for path in folder.glob("*"))
    return max((int(match[1]) for match in matches if match is not None), default=0)
