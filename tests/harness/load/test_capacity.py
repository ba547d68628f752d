"""The limits of this machine that a load client meets: open files and ports."""

from __future__ import annotations

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
