"""The lines of a sampler's file."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.power import joules, watts
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
from mtpbench.power.nodes import conditions
from mtpbench.records import PowerSource, to_json

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


BLANKS = {
    "DCGM_INT32": (0x7FFFFFF0, 0x7FFFFFF1, 0x7FFFFFF2, 0x7FFFFFF3),
    "DCGM_INT64": (0x7FFFFFFFFFFFFFF0, 0x7FFFFFFFFFFFFFF3, 9223372036854775792.0),
    "DCGM_FP64": (140737488355328.0, 140737488355329.0, 140737488355331.0),
    "NVML": (0xFFFFFFFF, 2**64 - 1, 2**63 - 1, -1),
    "none of the kind": (
        float("nan"),
        float("inf"),
        -float("inf"),
        -0.5,
        1e300,
        10**400,
        "500",
        "N/A",
        None,
        True,
    ),
}


@pytest.mark.parametrize("blank", [blank for blanks in BLANKS.values() for blank in blanks], ids=str)
def test_what_stands_for_no_value_is_none_whatever_its_unit(blank):
    assert [watts(blank), watts(blank, 1e3), joules(blank), joules(blank, 1e3)] == [None] * 4


def test_units_are_told_apart():
    assert (watts(500.25), watts(500_250, 1e3), watts(150_000_000, 1e6)) == (500.25, 500.25, 150.0)
    assert (joules(0), joules(7_500, 1e3)) == (0.0, 7.5)


STATES = st.fixed_dictionaries(
    {"meter": st.just(0)},
    optional={
        name: st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=3)
        for name in ("uuid", "temperature_c", "limit_w", "clock_reasons", "other_scope_w")
    },
)
ODD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.tuples(st.integers(0, 1), *[ODD] * 4).map(list) | ODD, max_size=3)
LINES = st.one_of(
    st.fixed_dictionaries({"t": ODD, "w": ODD, "gpu": ROWS | ODD}),
    st.fixed_dictionaries({"t": st.just(5.0), "w": st.just(1000.0), "gpu": ROWS, "grace": ROWS}),
    st.fixed_dictionaries(
        {"t": st.floats(0, 9), "w": ODD, "states": st.lists(ODD | STATES, max_size=2) | ODD}
    ),
    st.fixed_dictionaries({"t": ODD, "w": ODD, "late": ODD, "took_s": ODD}),
    st.fixed_dictionaries({"end": ODD}),
    ODD,
).map(json.dumps) | st.text(max_size=20)


@given(st.lists(LINES, max_size=6), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_lines_give_samples_that_can_be_stored_or_a_reason(lines, with_head):
    text = (HEAD if with_head else "") + "".join(f"{line}\n" for line in lines)
    try:
        log = parse(text)
    except ValueError:
        return
    taken = samples(log, 4.0, {0: "decode-0"})
    assert all(math.isfinite(s.time_s) and 0 <= s.gpu < 1 << 16 for s in taken)
    to_json([*taken, *conditions(log, {0: "decode-0"}, 0), *filter(None, [identity_fault(log)])])
    json.dumps(to_json(measure_energy(taken, Window(start_s=0.5, end_s=2.0), 1, 9.0, 5.0, None))).encode()


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"t": NaN, "w": 1, "gpu": []}']
)
def test_a_line_that_no_parser_can_read_costs_itself_only(line):
    log = parse(HEAD + line + "\n" + tick_line(5.0, 1000.0, "gpu", [reading(0)]))
    assert (len(log.ticks), log.damaged) == (1, 1)
