"""The limits of this machine that a load client meets: open files and ports."""

from __future__ import annotations

import errno
import resource

import pytest

from measured import make_point
from mtpbench.errors import RunError
from mtpbench.load import capacity
from mtpbench.load.capacity import local_ports, most_descriptors, raise_descriptor_limit
from mtpbench.records import Load, Simulation, Topology, WorkerGroup


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


@pytest.mark.parametrize(("hard", "connections", "needed"), [(63, 0, 64), (64, 65, 65), (1000, 1024, 1024)])
def test_too_few_files_are_said_before_anything_starts(monkeypatch, hard, connections, needed):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(RunError, match=f"lets a process open {hard} files; this run needs {needed} "):
        capacity.refuse_few_descriptors(connections)


@pytest.mark.parametrize("hard", [64, 1 << 20, resource.RLIM_INFINITY])
def test_enough_files_are_no_obstacle_however_low_the_soft_limit(monkeypatch, hard):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    capacity.refuse_few_descriptors(64)


SIMULATED = Simulation(profile="dsv4-gb200", clock="scaled", speed=5)


@pytest.mark.parametrize(
    ("workers", "concurrency", "simulation", "load", "files"),
    [
        ((1,), 40, SIMULATED, Load(), 64),
        ((1,), 80, SIMULATED, Load(), 80 + 24),
        ((4,), 80, SIMULATED, Load(), 2 * 80 + 24),
        ((1, 1), 40, SIMULATED, Load(), 3 * 40 + 24),
        ((3, 3), 80, SIMULATED, Load(), 3 * 80 + 24),
        ((1, 1), 40, None, Load(), 64),
        ((1, 1), 4000, None, Load(), 1000 + 24),
        ((1, 1), 4000, None, Load(workers=1), 4000 + 24),
        ((30,), 30, None, Load(), 2 * 31 + 4 * 4 + 24),
    ],
)
def test_the_process_that_opens_the_most_files_is_known(
    monkeypatch, workers, concurrency, simulation, load, files
):
    """What was seen with so many: 134 of a router with 3 × 40, 175 with 2 × 80, 71 of a run of 31 servers."""
    monkeypatch.setattr(capacity, "usable_cores", lambda: 4)
    roles = ("prefill", "decode") if len(workers) > 1 else ("aggregated",)
    groups = tuple(WorkerGroup(role=role, workers=n, tp=1) for role, n in zip(roles, workers, strict=True))
    topology = Topology(groups=groups)
    point = make_point(topology=topology, concurrency=concurrency, simulation=simulation, load=load)
    assert capacity.files_needed(point) == files


@pytest.mark.parametrize(("hard", "processes"), [(1024, 4), (1025, 3), (64, 8), (10, 1), (1 << 20, 1)])
def test_a_low_limit_of_files_asks_for_more_processes(monkeypatch, hard, processes):
    monkeypatch.setattr(capacity, "usable_cores", lambda: 8)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, hard))
    assert capacity.least_workers(3003) == processes
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, resource.RLIM_INFINITY))
    assert capacity.least_workers(3003) == 1


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
