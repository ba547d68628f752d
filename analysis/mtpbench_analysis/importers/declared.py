"""What the command line says of points whose source does not."""

from __future__ import annotations

from dataclasses import dataclass

from mtpbench.errors import InputError
from mtpbench_analysis.importers.names import METHODS

SERVING = ("aggregated", "disaggregated")
ACCEPTANCE_MODES = ("off", "measured", "golden")
_COUNTS = (
    "gpus",
    "prefill_gpus",
    "decode_gpus",
    "isl",
    "osl",
    "concurrency",
    "stream_interval",
    "draft_tokens",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """The declared facts are those of the command line; None is not declared.

    Args:
        gpus: all GPUs of the deployment; the sum of `prefill_gpus` and `decode_gpus` where they are given.
        serving: `aggregated` or `disaggregated`; the latter follows from two numbers of GPUs.
        method: how drafts are made, `off` where they are not.
        checkpoint: what was loaded as the target model, by path or hub id.
        draft_tokens: tokens that a step drafts.
        acceptance_mode: `off`, `measured` or `golden`.
        isl, osl: the lengths that the requests were made to have, in tokens.
        concurrency: for files that do not say it (AIPerf's CSV).
        range_ratio: lengths were drawn uniformly from it × L to L; 1 for exact lengths.
        stream_interval: tokens that a server without speculation collects before it sends a chunk.

    Raises:
        InputError: a number is not above 0, two contradict each other, or a word is unknown.
    """

    arm: str | None = None
    gpus: int | None = None
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    topology: str | None = None
    hardware: str | None = None
    precision: str | None = None
    model: str | None = None
    engine: str | None = None
    version: str | None = None
    serving: str | None = None
    image: str | None = None
    method: str | None = None
    checkpoint: str | None = None
    draft_tokens: int | None = None
    acceptance_mode: str | None = None
    isl: int | None = None
    osl: int | None = None
    concurrency: int | None = None
    range_ratio: float | None = None
    stream_interval: int | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: a whole number of 1 or more is needed")
        if self.range_ratio is not None and not 0 <= self.range_ratio <= 1:
            raise InputError(f"--range-ratio {self.range_ratio}: a share from 0 to 1 is needed")
        if self.arm is not None and not self.arm.strip():
            raise InputError("--arm is empty; an arm such as off or mtp is needed")
        _check_word("--serving", self.serving, SERVING)
        _check_word("--method", self.method, METHODS)
        _check_word("--acceptance-mode", self.acceptance_mode, ACCEPTANCE_MODES)
        self._check_gpus()

    def _check_gpus(self) -> None:
        if (self.prefill_gpus is None) != (self.decode_gpus is None):
            raise InputError("--prefill-gpus and --decode-gpus belong together; give both, or --gpus alone")
        if self.prefill_gpus is None or self.decode_gpus is None:
            return
        total = self.prefill_gpus + self.decode_gpus
        if self.gpus is not None and self.gpus != total:
            raise InputError(
                f"--gpus {self.gpus} contradicts --prefill-gpus {self.prefill_gpus} and --decode-gpus "
                f"{self.decode_gpus}, which make {total}; idle GPUs belong to the role that holds them"
            )
        if self.serving == "aggregated":
            raise InputError("--serving aggregated contradicts --prefill-gpus and --decode-gpus")

    @property
    def total_gpus(self) -> int | None:
        """Returns all GPUs of the deployment; None where they were not declared."""
        if self.prefill_gpus is not None and self.decode_gpus is not None:
            return self.prefill_gpus + self.decode_gpus
        return self.gpus

    @property
    def serving_mode(self) -> str | None:
        """Returns `aggregated` or `disaggregated`; None where it was not declared."""
        return "disaggregated" if self.prefill_gpus is not None else self.serving


def _check_word(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{option} {value}: one of {', '.join(allowed)} is needed")
