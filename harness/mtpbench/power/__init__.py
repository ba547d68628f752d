"""Power and energy: where readings come from (`simulated`), how they are taken, what they add up to."""
