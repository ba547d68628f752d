"""The lines of a sampler's file."""

from __future__ import annotations

import dataclasses

import pytest

from mtpbench.power.log import (
    MeterReading,
    MeterState,
    SourceProbe,
    end_line,
    head_line,
    identity_fault,
    late_line,
    parse,
    samples,
    states_line,
    tick_line,
    unread,
)
from mtpbench.records import PowerSource

PROBE = SourceProbe(
    kind="nvml", source=PowerSource(meter="nvml", power="instant", scope="gpu"), meters=((0, "GPU-a"),)
)
HEAD = head_line([PROBE, SourceProbe(kind="grace", reason=unread("no_grace", "none"))], 0.1)


def reading(meter=0, power_w=500.0, energy_j=7.5, unix_s=None):
    return MeterReading(meter=meter, power_w=power_w, energy_j=energy_j, unix_s=unix_s)


def test_what_is_written_is_read_again():
    text = HEAD + tick_line(1.5, 1000.5, "gpu", [reading()]) + tick_line(1.6, 1000.6, "grace", [reading(1)])
    text += states_line(1.7, 1000.7, [MeterState(meter=0, uuid="GPU-a")]) + end_line(
        2.0, 1001.0, "told to end"
    )
    log = parse(text)
    assert (log.gpu_probe, log.grace_probe, log.ended) == (PROBE, None, "told to end")
    assert [(t.monotonic_s, t.wall_s, t.kind, t.readings) for t in log.ticks] == [
        (1.5, 1000.5, "gpu", (reading(),)),
        (1.6, 1000.6, "grace", (reading(1),)),
    ]
    assert identity_fault(log) is None


def test_a_torn_last_line_costs_itself_only():
    whole = HEAD + tick_line(1.0, 1.0, "gpu", [reading()])
    log = parse(whole + tick_line(1.1, 1.1, "gpu", [reading()])[:-9])
    assert (len(log.ticks), log.ended) == (1, None)


def test_a_damaged_line_costs_itself_only_and_is_counted():
    good = tick_line(5.0, 1000.0, "gpu", [reading(0)])
    log = parse(HEAD + good + '{"t": 5.1, "w": 1000.1, "gp\n' + good)
    assert (len(log.ticks), log.damaged) == (2, 1)
    with pytest.raises(ValueError, match="line 1 of the power log"):
        parse("nonsense\n" + good)
    with pytest.raises(ValueError, match=r"line 1 .*format 99 where 2 is known"):
        parse(HEAD.replace('"format":2', '"format":99'))
    with pytest.raises(ValueError, match="the power log is empty"):
        parse("")


def test_readings_that_took_too_long_are_counted():
    log = parse(HEAD + late_line(5.0, 1000.0, [0, 1], 0.7) + late_line(6.0, 1001.0, [1], 0.6))
    assert (log.late, log.ticks) == ((3, 0.7), ())


def test_a_meter_that_was_stamped_itself_is_placed_there():
    log = parse(HEAD + tick_line(5.0, 1000.0, "gpu", [dataclasses.replace(reading(0), at_s=4.9), reading(1)]))
    assert [s.time_s for s in samples(log, 1.0, {})] == [pytest.approx(3.9), 4.0]


def test_what_no_process_holds_is_told_with_its_node():
    log = parse(HEAD + tick_line(5.0, 1000.0, "gpu", [reading(0), reading(1)]))
    found = samples(log, 3.0, {0: "decode-1"}, node=1)
    assert [(s.time_s, s.process, s.gpu) for s in found] == [(2.0, "decode-1", 0), (2.0, "unused@1", 1)]
    assert samples(log, 4.0, {})[0].time_s == 1.0


def test_a_reading_with_its_own_time_is_placed_there():
    log = parse(HEAD + tick_line(5.0, 1000.0, "gpu", [reading(unix_s=998.5)]))
    assert samples(log, 0.0, {})[0].time_s == 3.5


def test_a_state_that_does_not_know_its_gpu_is_no_swap():
    states = states_line(2.0, 2.0, [MeterState(meter=0, uuid=None)])
    assert identity_fault(parse(HEAD + states)) is None
