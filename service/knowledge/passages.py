"""Passages: slices of documents, small enough for several in a prompt, with their title and place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from service.knowledge.formats import Document, sections

MAX_PASSAGE = 1_600  # characters: small enough for several in a prompt
MAX_QUOTE = 280  # characters of a passage shown as its quote

# Breaks in order of preference: between paragraphs, after a line or sentence, between words.
BREAKS = tuple(map(re.compile, (r"\n[^\S\n]*\n", r"\n|[.!?]\s|[。！？]", r"\s")))


class Passage(NamedTuple):
    """Slice of a document. `score` grows with relevance; `quote` is the part that fits the query best.

    `trusted`: its author is the agent's, or an admin who has marked its document so.
    """

    title: str
    uri: str
    text: str
    category: str
    score: float = 0.0
    quote: str = ""
    trusted: bool = True

    @property
    def source(self) -> dict[str, str]:
        """Return the entry for a run result's `sources`."""
        return {"title": self.title, "uri": self.uri, "quote": self.quote}


def passages(document: Document, uri: str, category: str) -> Iterator[Passage]:
    """Cut a document at `uri` into its passages: each is a verbatim slice of its text.

    Title and place name the heading that a passage stands under, or its page.
    """
    name = document.title
    seen: dict[str, int] = {}
    for level, heading, body, page in sections(document):
        if level == 1:
            name = heading
        if not body.strip():
            continue
        if page:
            title, anchor = f"{name} — page {page}", f"page={page}"
        else:
            title = name if level <= 1 else f"{name} — {heading}"
            anchor = _anchor(heading or name, seen)
        for part in _parts(body):
            yield Passage(title, f"{uri}#{anchor}", part, category)


def cut(text: str, most: int) -> int:
    """Return the length of `text` up to the best break, at most `most` characters."""
    if len(text) <= most:
        return len(text)
    for pattern in BREAKS:
        ends = [found.end() for found in pattern.finditer(text, 1, most)]
        if ends and ends[-1] > most // 8:
            return ends[-1]
    return most


def _anchor(heading: str, seen: dict[str, int]) -> str:
    slug = re.sub(r"[^\w]+", "-", heading.lower()).strip("-")
    seen[slug] = seen.get(slug, 0) + 1
    return slug if seen[slug] == 1 else f"{slug}-{seen[slug]}"


def _parts(body: str) -> Iterator[str]:
    """Split a body into slices between paragraphs; within one only if longer than `MAX_PASSAGE`."""
    body, at = body.strip(), 0
    while at < len(body):
        size = cut(body[at : at + MAX_PASSAGE + 1], MAX_PASSAGE)
        if part := body[at : at + size].strip():
            yield part
        at += size
