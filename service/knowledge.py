"""Knowledge search: an agent's documents, split into passages at headings, full-text index (SQLite FTS5, BM25).

Index and query share one normalisation (`service.text.search_words`); a passage and its quote are verbatim slices of
the document.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from service.guardrails.hosts import hosts_in
from service.text import search_words
from service.text.search_words import Term

MAX_DOCUMENT = 10 * 1024 * 1024  # bytes
MAX_PASSAGE = 1_600  # characters: small enough for several in a prompt
MAX_QUOTE = 280  # characters of a passage shown as its quote
MIN_SCORE_SHARE = 0.25  # of the best score; a passage below shares only common words with the query

_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_CLOSING = re.compile(r"(?<=\s)#+$")  # closing sequence of a heading, but not "C#"
# Breaks in order of preference: between paragraphs, after a line or sentence, between words.
_BREAKS = tuple(map(re.compile, (r"\n[^\S\n]*\n", r"\n|[.!?]\s|[。！？]", r"\s")))
_MARK_START, _MARK_END = "\x02", "\x03"  # around a match; no token contains them


class KnowledgeFault(ValueError):
    """Unreadable document; `path` is the file."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(detail)
        self.path = path


class Passage(NamedTuple):
    """Slice of a document. `score` grows with relevance; `quote` is the part that fits the query best."""

    title: str
    uri: str
    text: str
    category: str
    score: float = 0.0
    quote: str = ""

    @property
    def source(self) -> dict[str, str]:
        """Return the entry for a run result's `sources`."""
        return {"title": self.title, "uri": self.uri, "quote": self.quote}


class Knowledge:
    """Passages and their index. Thread-safe and fork-safe: each process builds its own index."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        self.categories = frozenset(passage.category for passage in self.passages if passage.category)
        self._index: _Index | None = None

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts in the documents, to which answers may link."""
        return frozenset().union(*(hosts_in(passage.text) for passage in self.passages))

    @classmethod
    def load(cls, folder: Path) -> Knowledge:
        """Load every document below `folder`; its first sub-folder is its category. Raises `KnowledgeFault`."""
        found = sorted(path for path in folder.rglob("*.md") if not path.is_dir())
        documents = [path for path in found if not _exclusion(folder, path)]
        return cls([passage for path in documents for passage in _passages(folder, path)])

    def search(self, query: str, category: str | None = None, limit: int = 4) -> list[Passage]:
        """Find the best passages, best first; none for a query without a known word. Never raises."""
        terms = search_words.terms(query)
        if not terms or limit < 1 or not self.passages:
            return []
        index = self._index
        if index is None or index.pid != os.getpid():
            index = self._index = _Index(self.passages)  # two threads may each build one: harmless
        return index.search(terms, category, limit)


def excluded_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """List files that are not read as documents, with the reason; hidden ones only if they end in `.md`."""
    for path in sorted(folder.rglob("*")):
        why = _exclusion(folder, path)
        if why and (path.suffix == ".md" or not _hidden(folder, path)):
            yield path, f"is not read: {why}"


def _exclusion(folder: Path, path: Path) -> str:
    """Return the reason why a file is not read; empty for a document, and for a folder."""
    if path.is_dir():
        return "it is a link to a folder: put the folder in its place" if path.is_symlink() else ""
    if path.suffix != ".md":
        return "its name does not end in .md"
    if _hidden(folder, path):
        return "it is hidden, by a dot at the beginning of its name or its folder's"
    try:
        about = path.stat()
    except OSError:  # reported when the file is read
        return ""
    if not stat.S_ISREG(about.st_mode):
        return "it is no regular file"
    too_large = about.st_size > MAX_DOCUMENT
    return f"it is larger than {MAX_DOCUMENT // 1024**2} MiB: split it" if too_large else ""


def _hidden(folder: Path, path: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


class _Index:
    """FTS5 table of normalised words joined by spaces; the tokenizer only adds Porter stemming of English."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.pid = os.getpid()
        self._passages = passages
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE passage USING fts5(title, text, category UNINDEXED, tokenize='porter ascii')"
        )
        rows = (
            (number, _normalised(one.title), _normalised(one.text), one.category)
            for number, one in enumerate(passages)
        )
        self._db.executemany("INSERT INTO passage(rowid, title, text, category) VALUES (?, ?, ?, ?)", rows)
        self._db.commit()

    def search(self, terms: Sequence[Term], category: str | None, limit: int) -> list[Passage]:
        match = " OR ".join(f'"{" ".join(term)}"' for term in terms)  # only letters and digits: no operators
        with self._lock:
            rows = self._db.execute(
                "SELECT rowid, -bm25(passage, 3.0, 1.0), highlight(passage, 1, ?, ?) FROM passage"
                " WHERE passage MATCH ? AND (? IS NULL OR category = ?) ORDER BY 2 DESC, 1 LIMIT ?",
                (_MARK_START, _MARK_END, match, category, category, limit),
            ).fetchall()
        least = rows[0][1] * MIN_SCORE_SHARE if rows else 0.0
        return [
            self._passages[number]._replace(score=score, quote=_quote(self._passages[number].text, marked))
            for number, score, marked in rows
            if score >= least
        ]


def _normalised(text: str) -> str:
    return " ".join(token for word in search_words.words(text) for token in word.tokens)


def _quote(text: str, marked: str) -> str:
    """Cut the window of `text` with the most distinct matches. `marked`: its tokens, matches between marks."""
    if len(text) <= MAX_QUOTE:
        return text
    matches = _marked_words(text, marked.split())
    most = first = 0
    for i, (start, _) in enumerate(matches):
        inside = {token for begin, token in matches[i:] if begin < start + MAX_QUOTE // 2}
        if len(inside) > most:
            most, first = len(inside), start
    start = _sentence_start(text, first)
    return text[start : start + _cut(text[start : start + MAX_QUOTE + 1], MAX_QUOTE)].strip()


def _marked_words(text: str, tokens: Sequence[str]) -> list[tuple[int, str]]:
    """Return (offset, token) of each matched word."""
    starts = [word.start for word in search_words.words(text) for _ in word.tokens]
    found, inside = [], False
    for start, token in zip(starts, tokens, strict=True):
        inside |= token.startswith(_MARK_START)
        if inside:
            found.append((start, token.strip(_MARK_START + _MARK_END)))
        inside &= not token.endswith(_MARK_END)
    return found


def _sentence_start(text: str, at: int) -> int:
    """Return the offset of the sentence around `at`, or of the word, if the sentence is long."""
    earliest = max(0, at - MAX_QUOTE // 2)
    if earliest == 0:
        return 0
    for pattern in _BREAKS[1:]:
        ends = [found.end() for found in pattern.finditer(text, earliest, at)]
        if ends:
            return ends[-1] if pattern is _BREAKS[1] else ends[0]
    return at


def _cut(text: str, most: int) -> int:
    """Return the length of `text` up to the best break, at most `most` characters."""
    if len(text) <= most:
        return len(text)
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(text, 1, most)]
        if ends and ends[-1] > most // 8:
            return ends[-1]
    return most


def _passages(folder: Path, path: Path) -> Iterator[Passage]:
    relative = path.relative_to(folder)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnowledgeFault(path, "not UTF-8") from error
    except OSError as error:
        raise KnowledgeFault(path, f"cannot be read: {type(error).__name__}") from error
    category = relative.parts[0] if len(relative.parts) > 1 else ""
    document = path.stem.replace("-", " ").capitalize()
    seen: dict[str, int] = {}
    for level, heading, body in _sections(text):
        if level == 1:
            document = heading
        if not body.strip():
            continue
        title = document if level <= 1 else f"{document} — {heading}"
        slug = re.sub(r"[^\w]+", "-", (heading or document).lower()).strip("-")
        seen[slug] = seen.get(slug, 0) + 1
        anchor = slug if seen[slug] == 1 else f"{slug}-{seen[slug]}"
        for part in _parts(body):
            yield Passage(title, f"knowledge/{relative.as_posix()}#{anchor}", part, category)


def _sections(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield level (0: before the first heading), heading and body of each section; bodies are slices of `text`."""
    level, heading, body, fenced = 0, "", list[str](), False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        match = None if fenced else _HEADING.match(line)
        if match is None:
            body.append(line)
            continue
        yield level, heading, "\n".join(body)
        level, body = len(match[1]), []
        heading = _CLOSING.sub("", match[2].rstrip()).rstrip()
    yield level, heading, "\n".join(body)


def _parts(body: str) -> Iterator[str]:
    """Split a body into slices between paragraphs; within one only if longer than `MAX_PASSAGE`."""
    body, at = body.strip(), 0
    while at < len(body):
        size = _cut(body[at : at + MAX_PASSAGE + 1], MAX_PASSAGE)
        if part := body[at : at + size].strip():
            yield part
        at += size
