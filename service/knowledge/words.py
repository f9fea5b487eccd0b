"""Words of passages: stems, the index of a folder in memory (SQLite FTS5), and BM25 over passages of several sources.

Index and query share one normalisation (`service.text.search_words`) and one stemmer, SQLite's Porter, so that all
indexes find the same passages, whatever database they are in.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.knowledge.passages import Passage
from service.knowledge.quotes import quote
from service.text import search_words
from service.text.search_words import Term

MIN_SCORE_SHARE = 0.25  # of the best score; a passage below shares only common words with the query
CANDIDATES = 40  # passages of each source that are ranked together
TITLE_WEIGHT = 3.0
_SATURATION, _LENGTH = 1.2, 0.75  # k1 and b of BM25, as SQLite has them
_LONGEST_KEPT = 5  # letters of a stem that stays as it is
_MOST_STEMS = 100_000  # tokens whose stems a process remembers


class Statistics(NamedTuple):
    """Numbers of a collection that BM25 needs: passages, their tokens, and the passages that have each term."""

    passages: int
    tokens: int
    having: Sequence[int]


class Found(NamedTuple):
    """Candidates of one source for a query, and the statistics of all its passages."""

    passages: Sequence[Passage]
    statistics: Statistics


class _Stemmer:
    """SQLite's Porter stemmer, by an index of single words."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute("CREATE VIRTUAL TABLE word USING fts5(token, tokenize='porter ascii')")
        self._db.execute("CREATE VIRTUAL TABLE stem USING fts5vocab(word, 'instance')")

    def stems(self, tokens: Sequence[str]) -> list[str]:
        known = self._known
        if not known.keys() >= set(tokens):
            with self._lock:
                if len(known) > _MOST_STEMS:
                    known = self._known = {}
                self._learn([token for token in dict.fromkeys(tokens) if token not in known])
                known = self._known
        return [known.get(token, token) for token in tokens]

    def _learn(self, tokens: Sequence[str]) -> None:
        self._db.executemany("INSERT INTO word(rowid, token) VALUES (?, ?)", enumerate(tokens))
        found = dict(self._db.execute("SELECT doc, term FROM stem").fetchall())
        self._db.rollback()
        self._known |= {token: _singular(found.get(number, token)) for number, token in enumerate(tokens)}


def _singular(stem: str) -> str:
    """Take off `en`, of which Porter knows nothing: the plural of many German and Dutch words, such as `Bremsen`."""
    return stem[:-2] if len(stem) > _LONGEST_KEPT and stem.endswith("en") else stem


_stemmer: _Stemmer | None = None


def stems(tokens: Sequence[str]) -> list[str]:
    """Return the stem of each token. Fork-safe."""
    global _stemmer
    if _stemmer is None or _stemmer.pid != os.getpid():
        _stemmer = _Stemmer()  # two threads may each make one: harmless
    return _stemmer.stems(tokens)


def indexed(text: str) -> list[str]:
    """Return the stems of a text's tokens, in order."""
    return stems([token for word in search_words.words(text) for token in word.tokens])


def words_of(text: str) -> str:
    """Return the stems of a text as a full-text index keeps them."""
    return " ".join(indexed(text))


def query_terms(query: str) -> list[Term]:
    """Return the stemmed terms of a query, any of which may match."""
    return list(dict.fromkeys(tuple(stems(term)) for term in search_words.terms(query)))


class FolderIndex:
    """Full-text table of stems, joined by spaces."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.pid = os.getpid()
        self._passages = passages
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE passage USING fts5(title, text, category UNINDEXED, tokenize='ascii')"
        )
        rows = [
            (number, words_of(one.title), words_of(one.text), one.category)
            for number, one in enumerate(passages)
        ]
        self._tokens = sum(text.count(" ") + 1 for _, _, text, _ in rows)
        self._db.executemany("INSERT INTO passage(rowid, title, text, category) VALUES (?, ?, ?, ?)", rows)
        self._db.commit()

    def best(self, terms: Sequence[Term], category: str | None, limit: int) -> list[Passage]:
        """Return the best passages, best first, but none that shares only common words with the query."""
        rows = self._matching(terms, category, limit)
        least = rows[0][1] * MIN_SCORE_SHARE if rows else 0.0
        return [self._passages[number]._replace(score=score) for number, score in rows if score >= least]

    def found(self, terms: Sequence[Term], category: str | None) -> Found:
        """Return candidates, to be ranked with those of other sources."""
        passages = [self._passages[number] for number, _ in self._matching(terms, category, CANDIDATES)]
        having = [self._having(term) for term in terms]
        return Found(passages, Statistics(len(self._passages), self._tokens, having))

    def _matching(self, terms: Sequence[Term], category: str | None, limit: int) -> list[tuple[int, float]]:
        with self._lock:
            return self._db.execute(
                "SELECT rowid, -bm25(passage, ?, 1.0) FROM passage"
                " WHERE passage MATCH ? AND (? IS NULL OR category = ?) ORDER BY 2 DESC, 1 LIMIT ?",
                (TITLE_WEIGHT, search_words.in_fts5(terms), category, category, limit),
            ).fetchall()

    def _having(self, term: Term) -> int:
        with self._lock:
            query = "SELECT count(*) FROM passage WHERE passage MATCH ?"
            return int(self._db.execute(query, (search_words.in_fts5([term]),)).fetchone()[0])


def ranked(terms: Sequence[Term], sources: Sequence[Found]) -> list[Passage]:
    """Rank candidates of several sources together by BM25, as if they were one collection; best first.

    Passages that share only common words with the query are left out.
    """
    total = sum(source.statistics.passages for source in sources)
    average = max(1.0, sum(source.statistics.tokens for source in sources) / max(1, total))
    weights = [
        _weight(total, sum(source.statistics.having[n] for source in sources)) for n in range(len(terms))
    ]
    scored = [
        one._replace(score=_score(one, terms, weights, average))
        for source in sources
        for one in source.passages
    ]
    scored = sorted((one for one in scored if one.score > 0), key=lambda one: -one.score)
    return [one for one in scored if one.score >= scored[0].score * MIN_SCORE_SHARE]


def _weight(total: int, having: int) -> float:
    lacking = max(0, total - having)  # documents may have been added since the total was read
    return max(1e-6, math.log((lacking + 0.5) / (having + 0.5)))


def _score(passage: Passage, terms: Sequence[Term], weights: Sequence[float], average: float) -> float:
    title, text = indexed(passage.title), indexed(passage.text)
    length = _SATURATION * (1 - _LENGTH + _LENGTH * len(text) / average)
    score = 0.0
    for term, weight in zip(terms, weights, strict=True):
        often = TITLE_WEIGHT * len(_places(title, term)) + len(_places(text, term))
        score += weight * often * (_SATURATION + 1) / (often + length)
    return score


def quoted(passages: Iterable[Passage], terms: Sequence[Term]) -> list[Passage]:
    """Give each passage the quote that fits the query best."""

    def is_match(tokens: Sequence[str]) -> list[bool]:
        found = stems(tokens)
        hits = {at + n for term in terms for at in _places(found, term) for n in range(len(term))}
        return [at in hits for at in range(len(tokens))]

    return [one._replace(quote=quote(one.text, is_match)) for one in passages]


def _places(tokens: Sequence[str], term: Term) -> list[int]:
    """Return where a term begins in tokens."""
    size, first = len(term), term[0]
    if size == 1:
        return [at for at, token in enumerate(tokens) if token == first]
    last = len(tokens) - size + 1
    return [at for at in range(last) if tokens[at] == first and tuple(tokens[at : at + size]) == term]
