"""Power of GPUs and CPUs as meters read it; here what a source gives becomes a figure, or none."""

from mtpbench.records import known

BLANKS = frozenset(
    float(blank)
    for blank in (
        *range(0x7FFFFFF0, 0x7FFFFFF4),  # DCGM_INT32_BLANK, …_NOT_FOUND, …_NOT_SUPPORTED, …_NOT_PERMISSIONED
        *range(0x7FFFFFFFFFFFFFF0, 0x7FFFFFFFFFFFFFF4),  # DCGM_INT64_BLANK and so on
        *range(2**47, 2**47 + 4),  # DCGM_FP64_BLANK and so on
        *(2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1),  # NVML_VALUE_NOT_AVAILABLE as whatever type it is read
    )
)
"""What DCGM (dcgm_structs.h) and NVML (nvml.h) say for "there is no value", in their own units."""
MOST_W, MOST_J = 1e9, 1e13
"""Above this no figure of any unit is a power, or an energy since the driver was loaded."""


def watts(value: object, per_w: float = 1.0) -> float | None:
    """Returns a power in watts as a source gave it; None where it gave none.

    Args:
        value: what the source gave, in its own unit; anything.
        per_w: its units to a watt (1e3 for NVML's milliwatts).
    """
    return _figure(value, per_w, MOST_W)


def joules(value: object, per_j: float = 1.0) -> float | None:
    """Returns an energy in joules as a source gave it; None where it gave none; arguments as for `watts`."""
    return _figure(value, per_j, MOST_J)


def _figure(value: object, per_unit: float, most: float) -> float | None:
    figure = known(value, 0.0, most * per_unit)
    return None if figure is None or figure in BLANKS else figure / per_unit
