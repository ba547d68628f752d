"""What errors say."""

from __future__ import annotations

from pathlib import Path

from mtpbench.errors import ImportFileError, SweepError


def test_a_word_without_end_shows_both_ends() -> None:
    said = str(
        SweepError(f"unknown hardware '{'9' * 100_000}gb200'; known: cpu", path=Path("s.yaml"), line=7)
    )
    assert len(said) < 1000
    assert said.startswith("s.yaml:7: unknown hardware '999")
    assert said.endswith("9gb200'; known: cpu")


def test_a_long_path_and_many_words_stay_whole() -> None:
    text = f"/{'a' * 250}/{'b' * 250}/{'c' * 250}/x.csv:3: " + "word " * 2000
    assert str(ImportFileError(text)) == text
