"""Plain words that common tokenizers mostly keep whole, for chat prompts made of words."""

from __future__ import annotations

WORDS = tuple(
    """
    about again always answer back before best black book bring call carry children close color could
    different door draw early enough every family fast feel find first five food found friend full gave
    give great ground grow hand head heard here hold horse house island keep king land last learn left
    life line little long made many mean mile moon morning mother move music name need next north
    nothing ocean once open other page part piece plan play power problem question rain ready rest river
    rock round sail school seem several ship should side since size slow snow song sound stand start
    stay still stop street study sure take teach test that then these think thought through together
    took town
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
"""The words, each different."""
