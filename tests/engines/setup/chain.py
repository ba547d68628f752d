"""The language of the crafted models: one token class follows the other in a circle, for ever.

The model itself always says the next class. Its MTP layer does too, except after a few chosen classes, after
which it drafts a token that the model never says. So which drafts are accepted, and with them the mean
acceptance length, is known in closed form, whatever the prompt: every start ends in the same cycle of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A circle of `length` token classes; the MTP layer drafts wrongly after those in `wrong`."""

    length: int = 10
    wrong: frozenset[int] = frozenset({0, 1, 2})

    def accepted(self, position: int, drafts: int) -> int:
        """Drafts accepted in a step that begins after class `position`: those before the first wrong one."""
        count = 0
        while count < drafts and (position + count) % self.length not in self.wrong:
            count += 1
        return count

    def acceptance_length(self, drafts: int) -> Fraction:
        """Mean tokens per step, the bonus token included, once the steps repeat themselves.

        Raises:
            ValueError: different prompts would end in different cycles, so that there is no one length.
        """
        found = {self._cycle(start, drafts) for start in range(self.length)}
        if len(found) != 1:
            raise ValueError(f"the acceptance length depends on the prompt: {sorted(found)}")
        return found.pop()

    def _cycle(self, position: int, drafts: int) -> Fraction:
        first_seen: dict[int, int] = {}
        tokens: list[int] = []
        while position not in first_seen:
            first_seen[position] = len(tokens)
            tokens.append(1 + self.accepted(position, drafts))
            position = (position + tokens[-1]) % self.length
        cycle = tokens[first_seen[position] :]
        return Fraction(sum(cycle), len(cycle))


CHAIN = Chain()
