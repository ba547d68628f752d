"""Sweep files: YAML is checked and expanded to points."""

from mtpbench.sweep.expansion import Sweep, load_sweep, simulate

__all__ = ["Sweep", "load_sweep", "simulate"]
