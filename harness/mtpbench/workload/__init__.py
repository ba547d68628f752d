"""The workload of a point: lengths, prompts and their timing, exact, seeded and equal in both arms.

`draw_lengths` draws the lengths, and `spread_phases` shortens the first ones; `Prompts` builds the bodies of
requests, from random symbols or from a dataset. Everything depends on the point's
seed and the request's index alone.
"""

from mtpbench.workload.content import DEFAULT_VOCABULARY, WORDS, Piece
from mtpbench.workload.dataset import count_lines
from mtpbench.workload.lengths import Lengths, draw_lengths, spread_phases
from mtpbench.workload.prompts import CHAT, COMPLETIONS, Prompts

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "DEFAULT_VOCABULARY",
    "WORDS",
    "Lengths",
    "Piece",
    "Prompts",
    "count_lines",
    "draw_lengths",
    "spread_phases",
]
