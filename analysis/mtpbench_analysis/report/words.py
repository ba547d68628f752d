"""Pure: texts that a page says many times, each kept once."""

from __future__ import annotations


class Words:
    """Texts by the place at which the page's data keep them."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def index(self, text: str | None) -> int | None:
        """The text's place; None for None."""
        return None if text is None else self.known.setdefault(text, len(self.known))
