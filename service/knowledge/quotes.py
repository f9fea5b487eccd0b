"""Quotes: the part of a passage that fits a query best, verbatim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.knowledge.passages import BREAKS, MAX_QUOTE, cut
from service.text import search_words


def quote(text: str, is_match: Callable[[Sequence[str]], Sequence[bool]]) -> str:
    """Cut the window of `text` with the most distinct matches. `is_match` tells which of its tokens match."""
    if len(text) <= MAX_QUOTE:
        return text
    words = [(word.start, token) for word in search_words.words(text) for token in word.tokens]
    hits = is_match([token for _, token in words])
    matches = [word for word, hit in zip(words, hits, strict=True) if hit]
    most = first = 0
    for i, (start, _) in enumerate(matches):
        inside = {token for begin, token in matches[i:] if begin < start + MAX_QUOTE // 2}
        if len(inside) > most:
            most, first = len(inside), start
    start = _sentence_start(text, first)
    return text[start : start + cut(text[start : start + MAX_QUOTE + 1], MAX_QUOTE)].strip()


def _sentence_start(text: str, at: int) -> int:
    """Return the offset of the sentence around `at`, or of the word, if the sentence is long."""
    earliest = max(0, at - MAX_QUOTE // 2)
    if earliest == 0:
        return 0
    for pattern in BREAKS[1:]:
        ends = [found.end() for found in pattern.finditer(text, earliest, at)]
        if ends:
            return ends[-1] if pattern is BREAKS[1] else ends[0]
    return at
