"""The limits of this machine that a load client meets: open files and ports."""

from __future__ import annotations

import errno
import resource

import pytest

from mtpbench.errors import RunError
from mtpbench.load import capacity
from mtpbench.load.capacity import local_ports, most_descriptors, raise_descriptor_limit


def test_the_descriptor_limit_is_raised_only_as_far_as_needed(monkeypatch):
    limits = [100, 1000]
    monkeypatch.setattr("resource.getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr("resource.setrlimit", lambda kind, both: limits.__setitem__(slice(None), both))
    assert raise_descriptor_limit(50) == 100
    assert raise_descriptor_limit(500) == 500
    assert raise_descriptor_limit(5000) == 1000
    assert limits == [1000, 1000]
    assert most_descriptors() == 1000


def test_local_ports_are_counted_where_the_machine_says(monkeypatch, tmp_path):
    told = tmp_path / "range"
    monkeypatch.setattr("mtpbench.load.capacity._PORT_RANGE", told)
    assert local_ports() is None
    told.write_text("32768\t60999\n")
    assert local_ports() == 28232
    told.write_text("nonsense")
    assert local_ports() is None


@pytest.mark.parametrize(("hard", "connections", "needed"), [(63, 0, 64), (64, 41, 65), (1000, 1000, 1024)])
def test_too_few_files_are_said_before_anything_starts(monkeypatch, hard, connections, needed):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(RunError, match=f"lets a process open {hard} files; this run needs {needed} "):
        capacity.refuse_few_descriptors(connections)


@pytest.mark.parametrize("hard", [64, 1 << 20, resource.RLIM_INFINITY])
def test_enough_files_are_no_obstacle_however_low_the_soft_limit(monkeypatch, hard):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    capacity.refuse_few_descriptors(40)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no more memory"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more be opened or started"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (RuntimeError("a bug"), None),
        (OSError(errno.ENOENT, "No such file"), None),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a/b"), "a/b: File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied"),
        (KeyError("a bug"), None),
    ],
)
def test_limits_of_the_machine_are_told_from_bugs(error, words):
    limit = capacity.limit_met(error)
    assert limit is None if words is None else words in (limit or "")
