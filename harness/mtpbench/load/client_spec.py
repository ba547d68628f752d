"""The client spec holds what a client process needs in order to send its share of a point's requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtpbench.load.pacer import RequestCounts, Schedule, draw_arrivals_s
from mtpbench.records import Load, Measurement, Point, Workload
from mtpbench.redaction import secret_variables
from mtpbench.workload import Prompts, count_lines, draw_lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSpec:
    """The load of one point for one server; every client process reads it as JSON.

    Args:
        base_url: such as `http://127.0.0.1:8000`.
        model_name: the name that requests use.
        workload, load, rules, seed, concurrency: the point's own.
        time_scale: engine seconds per wall second.
        keeps_connections: whether connections are reused; else each request opens one and asks for its close.
        secret_variables: names of variables whose values no record may hold.
        handicap_s: wall seconds that a reader sleeps after each round; only tests of slow clients set it.
    """

    base_url: str
    model_name: str
    workload: Workload
    load: Load = field(default_factory=Load)
    rules: Measurement = field(default_factory=Measurement)
    seed: int = 0
    concurrency: int
    time_scale: float = 1.0
    keeps_connections: bool = True
    secret_variables: tuple[str, ...] = ()
    handicap_s: float = 0.0

    @classmethod
    def of(cls, point: Point, base_url: str, model_name: str, time_scale: float, keeps: bool) -> ClientSpec:
        """Builds the spec of a point's load for a live deployment."""
        return cls(
            base_url=base_url,
            model_name=model_name,
            workload=point.workload,
            load=point.load,
            rules=point.measurement,
            seed=point.seed,
            concurrency=point.concurrency,
            time_scale=time_scale,
            keeps_connections=keeps,
            secret_variables=secret_variables(point),
        )

    def counts(self) -> RequestCounts:
        """Returns how many requests are warm-up and how many are measured; a trace is sent once, whole."""
        counts = RequestCounts.of(self.concurrency, self.rules)
        if self.load.pacing != "trace":
            return counts
        lines = count_lines(self.workload)
        warmup = min(counts.warmup, lines // 4)
        return RequestCounts(warmup=warmup, measured=lines - warmup)

    def prepare(self) -> tuple[Prompts, Schedule]:
        """Builds the requests and their schedule; both are equal in every process.

        Raises:
            SweepError: the dataset can't be used, or a trace has no timestamps.
        """
        counts = self.counts()
        prompts = Prompts(
            self.workload,
            draw_lengths(self.workload, counts.total, self.seed, stratified=self.rules.stratifies_lengths),
            self.seed,
            model_name=self.model_name,
            continuous_usage=self.rules.continuous_usage,
        )
        heads, following = Schedule.chained(prompts.after)
        arrivals = trace_times_s = None
        if self.load.pacing == "trace":
            trace_times_s = prompts.trace_arrivals_s()
            arrivals = trace_times_s[heads]
        elif self.load.open:
            arrivals = draw_arrivals_s(self.load, len(heads), self.seed)
        schedule = Schedule(
            concurrency=self.concurrency,
            warmup=counts.warmup,
            heads=heads,
            arrivals_s=arrivals,
            following=following,
            delay_s=prompts.delay_s,
            not_before_s=trace_times_s,
            ramp_s=self.load.ramp_s,
            time_scale=self.time_scale,
        )
        if self.rules.spreads_phases:
            prompts.spread_phases(schedule.first_of_slots, self.seed)
        return prompts, schedule
