"""Records are the values that the parts exchange: frozen, keyword-only, JSON round-trip, units in the names.

Standard library only. In the order of the flow: `speculation` (arms), `load` (how requests are sent),
`measurement` (by what rules), `point` (what is measured), `process` (what is started), `raw` (what is
recorded), `result` (what is derived, and what tables need besides); `codec` turns them into JSON and back.

Schema history (`SCHEMA_VERSION` is written into every stored record; the store refuses what is not
among `READABLE_VERSIONS`)
    1   2026-11   first version
    2   2026-11   how load is sent (`Load`), what the client saw of itself, token gaps, stalls, latency from
                  the schedule
    3   2026-11   time blocks of the window; energy by GPU and by role, of Grace, and the integral beside it
    4   2026-11   idle power, what GPUs reported of themselves, GPUs of the nodes that no process used
    5   2026-11   sources and reasons as fields: what pins acceptance, what counters and power are read from,
                  why power or energy is unknown
    6   2026-11   prompt tokens from a prefix cache and reasoning tokens by request; tokens per chunk;
                  which scrape found a series of counters begun anew; reads that a clock stamped too early
    7   2026-11   which start of its servers a point was measured in, and which of several it asks for;
                  what its source says of a constant; intervals of percentiles; power and acceptance by time
                  block; the rule of measuring, and how a run settled
    8   2026-11   which release of its router a point asks for; counters of steps alone; an acceptance that no
                  step can give is unknown
    9   2026-11   arms of any method of speculation, with a checkpoint and a rule of depth of their own; how
                  many drafts a step really makes; categories of prompts; keys of a request's body
"""

from mtpbench.records.codec import (
    MOST_COUNTED,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Clock,
    Flags,
    Json,
    Role,
    WorkerRole,
    decode_json,
    digest,
    from_json,
    known,
    to_json,
    well_formed,
)
from mtpbench.records.latency import CategoryFigures, Distribution, Interval, Stalls, StepsGap, ToldGap
from mtpbench.records.load import Load, LoadForm, load_label
from mtpbench.records.measurement import (
    LEAST_WARMUP_TO_SPREAD,
    OLDEST_RULE,
    Measurement,
    MeasuringRule,
    Settling,
    Trend,
)
from mtpbench.records.point import (
    MAX_SPEED,
    AcceptanceShape,
    Engine,
    EngineLimits,
    Fault,
    Model,
    Point,
    Simulation,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.records.process import Container, Deployment, File, Probe, Process
from mtpbench.records.raw import (
    GRACE,
    MOST_CATEGORIES,
    UNUSED,
    Answers,
    ClientHealth,
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
    Scope,
    SpecCounters,
    SpecGauge,
)
from mtpbench.records.result import (
    Acceptance,
    AcceptanceGap,
    Blocks,
    Energy,
    GaugeMean,
    Hardware,
    PointResult,
    Provenance,
    Rates,
    Reference,
    ReferenceRow,
    SweepInfo,
    TpotBasis,
)
from mtpbench.records.speculation import (
    DRAFT_CHECKPOINTS,
    METHOD_NAMES,
    MOST_DRAFTS,
    OFF,
    OWN_HEADS,
    WITHOUT_MODEL,
    AcceptancePolicy,
    Arm,
    DepthRange,
    DepthRule,
    GoldenTable,
    Method,
    Speculation,
    speculation_label,
)

__all__ = [
    "DRAFT_CHECKPOINTS",
    "GRACE",
    "LEAST_WARMUP_TO_SPREAD",
    "MAX_SPEED",
    "METHOD_NAMES",
    "MOST_CATEGORIES",
    "MOST_COUNTED",
    "MOST_DRAFTS",
    "OFF",
    "OLDEST_RULE",
    "OWN_HEADS",
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "UNUSED",
    "WITHOUT_MODEL",
    "Acceptance",
    "AcceptanceGap",
    "AcceptancePolicy",
    "AcceptanceShape",
    "Answers",
    "Arm",
    "Blocks",
    "CategoryFigures",
    "ClientHealth",
    "Clock",
    "Container",
    "CounterSample",
    "CounterSource",
    "Deployment",
    "DepthRange",
    "DepthRule",
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
    "Interval",
    "Json",
    "Load",
    "LoadForm",
    "Measurement",
    "MeasuringRule",
    "Method",
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
    "Scope",
    "Settling",
    "Simulation",
    "SpecCounters",
    "SpecGauge",
    "Speculation",
    "Stalls",
    "StepsGap",
    "SweepInfo",
    "ToldGap",
    "Topology",
    "TpotBasis",
    "Trend",
    "WorkerGroup",
    "WorkerRole",
    "Workload",
    "decode_json",
    "digest",
    "from_json",
    "known",
    "load_label",
    "speculation_label",
    "to_json",
    "well_formed",
]
