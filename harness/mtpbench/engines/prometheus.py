"""Pure: speculation counters out of Prometheus text, summed over label sets."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from mtpbench.records import SpecCounters


def spec_counters(metrics_text: str, prefix: str) -> SpecCounters | None:
    """The four `<prefix>spec_decode_*` counters as vLLM names them; None where they are absent.

    Args:
        metrics_text: the body of /metrics.
        prefix: `vllm:` or `llamacpp:`.

    Raises:
        ValueError: the text is not Prometheus's exposition format.
    """
    sums: dict[str, float] = defaultdict(float)
    positions: dict[int, float] = defaultdict(float)
    start = f"{prefix}spec_decode_num_"
    # Of an engine's long text only these lines are parsed: the sampler shares the client's event loop.
    lines = [line for line in metrics_text.splitlines() if line.startswith(start)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            name = sample.name.removeprefix(start)
            if name == "accepted_tokens_per_pos_total":
                positions[int(sample.labels["position"])] += sample.value
            else:
                sums[name] += sample.value
    if "drafts_total" not in sums:
        return None
    return SpecCounters(
        drafts=sums["drafts_total"],
        draft_tokens=sums["draft_tokens_total"],
        accepted_tokens=sums["accepted_tokens_total"],
        per_position=tuple(positions[i] for i in sorted(positions)),
    )
