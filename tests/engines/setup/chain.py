"""The language of the crafted models: one token class follows the other in a circle, for ever.

The model itself always says the next class. Its MTP layer does too, except after a few chosen classes, after
which it drafts a token that the model never says. So which drafts are accepted, and with them the mean
acceptance length, is known in closed form, whatever the prompt: every start ends in the same cycle of steps.

Drafts from the text so far (n-gram) are right where the text says what the model will say. `lookup_prompt` is
a text that does, except after the same classes, and `replay` counts what a drafter makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A circle of `length` token classes; the MTP layer drafts wrongly after those in `wrong`.

    The model says them as letters, from `first` on.
    """

    length: int = 10
    wrong: frozenset[int] = frozenset({0, 1, 2})
    first: str = "a"

    @property
    def letters(self) -> str:
        """What the model says, once round the circle."""
        return "".join(chr(ord(self.first) + i) for i in range(self.length))

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
        return Fraction(1) + sum(self.rates(drafts))

    def rates(self, drafts: int) -> tuple[Fraction, ...]:
        """The share of steps that accept the draft at each position, once the steps repeat themselves.

        Raises:
            ValueError: different prompts would end in different cycles.
        """
        found = {self._cycle(start, drafts) for start in range(self.length)}
        if len(found) != 1:
            raise ValueError(f"acceptance depends on the prompt: {sorted(found)}")
        return found.pop()

    def _cycle(self, position: int, drafts: int) -> tuple[Fraction, ...]:
        first_seen: dict[int, int] = {}
        accepted: list[int] = []
        while position not in first_seen:
            first_seen[position] = len(accepted)
            accepted.append(self.accepted(position, drafts))
            position = (position + 1 + accepted[-1]) % self.length
        cycle = accepted[first_seen[position] :]
        return tuple(Fraction(sum(a > i for a in cycle), len(cycle)) for i in range(drafts))


CHAIN = Chain()
LONG_CHAIN = Chain(length=90, wrong=frozenset(i for i in range(90) if i % 10 < 3), first="!")
"""An answer repeats itself from its 91st token on: until then drafts can only come from the prompt."""
NEVER = "~"
"""What the model never says."""

Drafter = Callable[[str], str]
"""What is drafted after a text."""


def lookup_prompt(chain: Chain, last: int) -> str:
    """A prompt that has each letter followed by the next one, but by `NEVER` after the classes in `wrong`.

    Args:
        chain: the model's language.
        last: the class that the prompt ends with, so that the answer begins with the one after it.
    """
    round_and_on = [*range(chain.length), 0]
    told = "".join(chain.letters[i] + NEVER * (i in chain.wrong) for i in round_and_on)
    return told + chain.letters[last]


def earliest_match(size: int, drafts: int) -> Drafter:
    """Drafts what followed the last `size` letters where they stood first, as vLLM's n-gram does."""

    def draft(text: str) -> str:
        found = text.find(text[-size:], 0, len(text) - 1)
        return text[found + size :][:drafts] if found >= 0 else ""

    return draft


def latest_match(size: int, drafts: int) -> Drafter:
    """Drafts what followed the last `size` letters where they stood last, as llama.cpp's ngram-simple does.

    What follows ends before the text's last letter, and must be `size` letters at least.
    """

    def draft(text: str) -> str:
        before = text[:-1]
        found = before.rfind(text[-size:], 1, len(before) - 1)
        drafted = before[found + size :][:drafts]
        return drafted if found > 0 and len(before) > size + drafts + 1 and len(drafted) >= size else ""

    return draft


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafted:
    """What a server counts of drafting: steps that drafted, draft tokens, and those that were accepted."""

    steps: int
    tokens: int
    accepted: int

    @property
    def acceptance_length(self) -> float:
        """Mean tokens of a step that drafted, the bonus token included."""
        return 1 + self.accepted / self.steps


def replay(chain: Chain, prompts: Sequence[str], tokens: int, draft: Drafter, *, cut: bool) -> Drafted:
    """Counts what a drafter drafts while each prompt is answered with so many tokens.

    Args:
        chain: the model's language.
        prompts: one for each request.
        tokens: output tokens of each; the first one comes without drafts.
        draft: the drafter.
        cut: whether a step drafts no more than what is left of the answer after its own token.
    """
    steps = drafted_tokens = accepted_tokens = 0
    for prompt in prompts:
        answer = _answer(chain, prompt[-1], 2 * tokens)
        said = 1
        while said < tokens:
            drafted = draft(prompt + answer[:said])
            if cut:
                drafted = drafted[: tokens - said - 1]
            right = 0
            while right < len(drafted) and drafted[right] == answer[said + right]:
                right += 1
            steps += bool(drafted)
            drafted_tokens += len(drafted)
            accepted_tokens += right
            said += right + 1
    return Drafted(steps=steps, tokens=drafted_tokens, accepted=accepted_tokens)


def _answer(chain: Chain, last: str, tokens: int) -> str:
    begin = chain.letters.index(last) + 1
    return "".join(chain.letters[(begin + i) % chain.length] for i in range(tokens))
