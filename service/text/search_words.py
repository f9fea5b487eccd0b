"""Tokeniser for full-text search, with one normalisation for documents and queries.

- Case, width, ligatures and accents are folded: "STRASSE" is "Straße", "resume" is "résumé", "Istanbul" is
  "İstanbul". Digits of every script become ASCII digits. A word's `'s` and an elided article ("l'été") are dropped.
- A compound (`H-104`, `foo_bar()`, `getUser`, `two-factor`) is indexed as its parts and as one word. A query that
  ends in a number (`H-104`, `v1.2`) matches as a whole only, with any separator or none; another also by its parts.
- Chinese, Japanese, Korean and other scripts without spaces between words, or with suffixes attached, are indexed by
  character and queried by bigrams (trigrams where characters are parts of syllables).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple
from unicodedata import category, decimal, normalize

from service.text.stop_words import STOP_RUNS, STOP_WORDS

MAX_TOKEN = 64  # characters
MAX_TERMS = 64  # of a query
MAX_QUERY = 10_000  # characters of a query; further ones are ignored

Term = tuple[str, ...]  # consecutive tokens

_SYLLABLES = "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\uac00-\ud7a3"
_UNSPACED = _SYLLABLES + _KANA + _HAN + _HANGUL + "\u1100-\u11ff"
_VOICED = "\u3099\u309a\uff9e\uff9f"  # voicing marks of kana as separate characters
_GLUE = (
    "\u00ad\u200c\u200d\u2060\ufeff"  # invisible characters in a word: soft hyphen, joiners, byte order mark
)
_PIECE = re.compile(
    f"(?P<character>[\u1100-\u115f][\u1160-\u11a7]?[\u11a8-\u11ff]?|[{_UNSPACED}][{_VOICED}]*)|[^{_UNSPACED}]+"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_IS_SYLLABLE, _IS_KANA, _IS_HANGUL = (re.compile(f"[{script}]") for script in (_SYLLABLES, _KANA, _HANGUL))
_OBJECT_MARKERS = frozenset("은는을를가")  # Korean particles that rarely end a noun of two syllables

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ACCENTS = re.compile(  # not after Cyrillic: й is a letter
    "(?<![\u0400-\u04ff])[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]+"
)
_LETTERS = str.maketrans(
    {"ı": "i", "ø": "o", "đ": "d", "ł": "l", "æ": "ae", "œ": "oe", "ё": "е", "ى": "ي", "ة": "ه"}
    | dict.fromkeys("’‘ʼ", "'")
    | dict.fromkeys("ـ" + _GLUE)
)
_ENDING = re.compile(r"'[a-z]{1,2}(?![a-z])")  # harbor's, don't, we'll
_ELIDED = re.compile(r"(?<![a-z])(?:[cdjlmnst]|qu)'(?=[^\W\d_])")  # l'été, qu'on
_ARTICLE = re.compile(r"^ال(?=\w{3})")


class Word(NamedTuple):
    """Word of a text with its offsets. `joined`: its parts as one; `unspaced`: one character of an unspaced script."""

    start: int
    end: int
    parts: Term
    joined: str = ""
    unspaced: bool = False

    @property
    def tokens(self) -> Term:
        return (*self.parts, self.joined) if self.joined else self.parts


def normalise(text: str) -> str:
    """Fold case, width, accents and digits. The length may change."""
    if text.isascii():
        return _CAMEL.sub("_", text).lower()
    text = _CAMEL.sub("_", normalize("NFKC", text)).casefold().translate(_LETTERS)
    text = normalize("NFC", _ACCENTS.sub("", normalize("NFD", text)))
    return "".join(str(decimal(char)) if char.isdecimal() else char for char in text)


def words(document: str) -> Iterator[Word]:
    """Yield the words of a text, in order, without those that have no letter or digit."""
    chunk, _ = _patterns()
    for found in chunk.finditer(document):
        text = found[0]
        if text.isascii() or _IS_UNSPACED.search(text) is None:
            yield from _spaced(text, found.start())
            continue
        for piece in _PIECE.finditer(text):
            start = found.start() + piece.start()
            if piece["character"]:
                yield Word(start, start + len(piece[0]), (_normalised_character(piece[0]),), unspaced=True)
            else:
                yield from _spaced(piece[0], start)


def terms(query: str) -> list[Term]:
    """Parse a query into terms, any of which may match; stop words only where there are no others."""
    found = list(dict.fromkeys(_all_terms(query[:MAX_QUERY])))
    return ([term for term in found if not _is_stop_term(term)] or found)[:MAX_TERMS]


def in_fts5(terms: Iterable[Term]) -> str:
    """Return a query of SQLite's FTS5 for any of the terms: their tokens are letters and digits only, no operators."""
    return " OR ".join(f'"{" ".join(term)}"' for term in terms)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a compound word, and of a part of a normalised one; with marks (Hindi vowels), unlike `\\w`."""
    marks = "".join(chr(code) for code in range(0x300, 0x10000) if category(chr(code))[0] == "M")
    inner = rf"[\w{marks}{_GLUE}]+"
    separator = r"(?:[-‐‑./'’]|(?<=[0-9]),(?=[0-9]{3}(?![0-9])))"  # a comma in 1,024
    return re.compile(rf"{inner}(?:{separator}{inner})*"), re.compile(rf"[0-9]+|(?:[^\W\d_]|[{marks}])+")


@lru_cache(20_000)
def _normalised_character(text: str) -> str:
    """Normalise one character of an unspaced script: some thousands, each many times in a document."""
    return normalise(text)


def _spaced(text: str, start: int) -> Iterator[Word]:
    if text.isascii() and text.isalpha() and text[1:].islower():  # fast path for most words
        yield Word(start, start + len(text), (text.lower()[:MAX_TOKEN],))
        return
    plain = _ELIDED.sub("", _ENDING.sub("", normalise(text))).replace(",", "")
    parts = tuple(_ARTICLE.sub("", part)[:MAX_TOKEN] for part in _patterns()[1].findall(plain))
    if parts:
        joined = "".join(parts)[:MAX_TOKEN]
        single = len(parts) == 1 or joined.isdecimal()  # 1.5 is not 15
        yield Word(start, start + len(text), parts, "" if single else joined)


def _all_terms(query: str) -> Iterator[Term]:
    run: list[str] = []
    end = -1
    for word in words(query):
        if run and not (word.unspaced and word.start == end):
            yield from _ngrams(run)
            run = []
        if word.unspaced:
            run += word.parts
            end = word.end
        else:
            yield from _terms_of(word)
    yield from _ngrams(run)


def _terms_of(word: Word) -> Iterator[Term]:
    if len(word.parts) == 1 or word.parts[-1][0].isdecimal():
        yield word.parts
    else:
        yield from ((part,) for part in word.parts)
    if word.joined:
        yield (word.joined,)


def _ngrams(run: list[str]) -> Iterator[Term]:
    """Bigrams, or trigrams, of a run of characters without spaces."""
    if not run:
        return
    size = 3 if _IS_SYLLABLE.match(run[0]) else 2
    for at in range(max(1, len(run) - size + 1)):
        yield tuple(run[at : at + size])
    if len(run) == 2 and run[1] in _OBJECT_MARKERS and _IS_HANGUL.match(run[0]):
        yield (run[0],)


@cache
def _stop_terms() -> frozenset[Term]:
    return frozenset(term for run in STOP_RUNS for term in _all_terms(run))


def _is_stop_term(term: Term) -> bool:
    if len(term) == 1:
        return term[0] in STOP_WORDS or _IS_KANA.match(term[0]) is not None
    return term in _stop_terms()
