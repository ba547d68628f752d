"""Power: any log of a sampler, any figures of a driver, any samples that were stored."""

from __future__ import annotations

import json
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from mtpbench.metrics.energy import measure_energy, measure_idle
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
)
from mtpbench.power.nodes import NodeLog, conditions, gather, gpus_of_node, hindrances, read_past, readings
from mtpbench.records import PowerSample, PowerSource, to_json

SOURCE = PowerSource(meter="nvml", counter=True, power="instant", scope="gpu")
PROBE = SourceProbe(kind="nvml", source=SOURCE, meters=((0, "GPU-a"),), models=("H200",), driver="1")
GPUS = gpus_of_node(0, {0: "decode-0"}, None)
LOG = (
    head_line([PROBE], 0.1)
    + "".join(
        tick_line(i / 10, 1e9 + i / 10, "gpu", [MeterReading(meter=0, power_w=500.0, energy_j=50.0 * i)])
        for i in range(30)
    )
    + states_line(
        3.0, 1e9, [MeterState(meter=0, uuid="GPU-a", temperature_c=60, limit_w=700.0, clock_reasons=4)]
    )
    + late_line(3.1, 1e9, [0], 0.7)
    + end_line(3.2, 1e9, "told to end")
)
PIECES = (
    *("NaN", "Infinity", "1e999", "-1", "9" * 400, "null", "true", '"x"', "[]", "{}", "[" * 5000, "\n", ","),
    *(
        "2147483632",
        "9223372036854775792",
        "0.0",
        "1e308",
        '"\\ud800"',
        '"t":',
        '"states":',
        '"late":',
        '"end":',
    ),
)


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 2, 5))):
        place = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text = text[:place] + chance.choice(PIECES) + text[place + chance.choice((0, 1, 5, 12)) :]
            case 1:
                text = text[:place] + text[place + chance.choice((1, 9, 90)) :]
            case 2:
                text = text[:place] + text[: chance.choice((5, 90))] + text[place:]
            case _:
                text = text[:place] + chr(chance.randrange(0x500)) + text[place + 1 :]
    return text


@given(st.randoms(use_true_random=False))
def test_any_log_is_samples_or_a_reason(chance: random.Random) -> None:
    try:
        log = parse(mutated(LOG, chance))
    except ValueError:
        return
    taken = samples(log, 0.0, GPUS.owners)
    assert all(math.isfinite(sample.time_s) for sample in taken)
    logs = {0: NodeLog(log=log, offset_s=0.0)}
    gathered, all_conditions = gather([GPUS], logs), conditions(log, GPUS.owners, 0)
    read_past([GPUS], logs, 2.0)
    energy = measure_energy(readings([GPUS], logs, 0.0), Window(start_s=0.5, end_s=2.5), 1, 9.0, 5.0, None)
    stored = to_json([energy, *all_conditions, *filter(None, (identity_fault(log), gathered.reason))])
    json.dumps([stored, hindrances(tuple(all_conditions))], allow_nan=False)


FIGURES = (
    st.none() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from([0.0, 500.0, 2.0**47])
)


@given(FIGURES, st.sampled_from([1.0, 1e3, 1e6]))
def test_any_figure_is_one_that_can_be_or_none(value: object, per_unit: float) -> None:
    for figure in (watts(value, per_unit), joules(value, per_unit)):
        assert figure is None or 0 <= figure <= 1e13


NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 499.0, 500.0, 501.0, 1e-300, 1e300])
SAMPLES = st.lists(
    st.builds(
        PowerSample,
        time_s=st.floats() | st.floats(0, 5),
        process=st.sampled_from(["decode-0", "grace@0", "unused@0", "a+b"]),
        gpu=st.integers(0, 1),
        power_w=NUMBERS,
        energy_j=NUMBERS,
    ),
    max_size=14,
)


@given(SAMPLES, st.floats(-1, 4), st.floats(0.001, 3))
def test_any_samples_are_an_energy_or_a_reason(
    taken: list[PowerSample], start_s: float, seconds: float
) -> None:
    window = Window(start_s=start_s, end_s=start_s + seconds)
    energy = measure_energy(taken, window, 1, 9.0, 5.0, SOURCE)
    idle = measure_idle(taken, "loaded", seconds, 1)
    json.dumps(to_json([energy, idle]), allow_nan=False)
    assert (energy.energy_j is None) == (energy.reason is not None)
