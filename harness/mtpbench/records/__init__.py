"""Every record that crosses a seam: frozen, keyword-only, JSON round-trip, units in the names.

Standard library only. In the order of the flow: `point` (what is measured), `process` (what is started),
`raw` (what is recorded), `result` (what is derived), `sweepinfo` (what tables need besides); `codec` turns
them into JSON and back.

Schema history (`SCHEMA_VERSION` is written into every stored record; the store refuses what is not
among `READABLE_VERSIONS`)
    1   2026-11   first version
    2   2026-11   how load is sent (`Load`), what the client saw of itself, token gaps, stalls, latency from
                  the schedule
    3   2026-11   time blocks of the window; energy by GPU and by role, of Grace, and the integral beside it
    4   2026-11   idle power, what GPUs said of themselves, GPUs at hand that nobody used
    5   2026-11   sources and reasons as fields: what pins acceptance, what counters and power are read from,
                  why power or energy is unknown
"""

from mtpbench.records.codec import (
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Clock,
    Flags,
    Json,
    Role,
    WorkerRole,
    digest,
    from_json,
    to_json,
)
from mtpbench.records.point import (
    AcceptancePolicy,
    Arm,
    Engine,
    EngineLimits,
    Fault,
    GoldenTable,
    Load,
    Measurement,
    Model,
    Point,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.records.process import Container, Deployment, File, Probe, Process
from mtpbench.records.raw import (
    GRACE,
    UNUSED,
    Answers,
    CounterSample,
    CounterSource,
    Evaluation,
    GpuCondition,
    IdlePower,
    IdleState,
    PowerSample,
    PowerSource,
    Reason,
    RequestRecord,
    RunFacts,
    SpecCounters,
    SpecGauge,
)
from mtpbench.records.result import (
    Acceptance,
    Blocks,
    ClientHealth,
    Distribution,
    Energy,
    GaugeMean,
    PointResult,
    Provenance,
    Rates,
    Stalls,
)
from mtpbench.records.sweepinfo import Hardware, Reference, ReferenceRow, SweepInfo

__all__ = [
    "GRACE",
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "UNUSED",
    "Acceptance",
    "AcceptancePolicy",
    "Answers",
    "Arm",
    "Blocks",
    "ClientHealth",
    "Clock",
    "Container",
    "CounterSample",
    "CounterSource",
    "Deployment",
    "Distribution",
    "Energy",
    "Engine",
    "EngineLimits",
    "Evaluation",
    "Fault",
    "File",
    "Flags",
    "GaugeMean",
    "GoldenTable",
    "GpuCondition",
    "Hardware",
    "IdlePower",
    "IdleState",
    "Json",
    "Load",
    "Measurement",
    "Model",
    "Point",
    "PointResult",
    "PowerSample",
    "PowerSource",
    "Probe",
    "Process",
    "Provenance",
    "Rates",
    "Reason",
    "Reference",
    "ReferenceRow",
    "RequestRecord",
    "Role",
    "RunFacts",
    "Simulation",
    "SpecCounters",
    "SpecGauge",
    "Speculation",
    "Stalls",
    "SweepInfo",
    "Topology",
    "WorkerGroup",
    "WorkerRole",
    "Workload",
    "digest",
    "from_json",
    "to_json",
]
