"""A test whether the new sweep is slower than the old one; it has no verdict where it could not see that.

    sources ─ matching ─► Matched ─ paired_runs ─► PairedRuns ─ estimates ─► Estimate ─ verdicts ─► Regression
                                                                              document, JSON ◄─ report ─┘

docs/howto/regression.md says which errors are in an interval and which are not.
"""

from __future__ import annotations

from mtpbench_analysis.regression.matching import Matched, match
from mtpbench_analysis.regression.verdicts import Criteria, Finding, Regression, find_regression

__all__ = ["Criteria", "Finding", "Matched", "Regression", "find_regression", "match"]
