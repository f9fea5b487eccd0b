"""Words for full-text search: one normalisation for documents and queries, so that spellings of a word meet.

- Case, width, ligatures and accents make no difference: "STRASSE" is "Straße", "resume" is "résumé", "Istanbul" is
  "İstanbul". Digits of every script are ASCII digits. A word's `'s` and an elided article ("l'été") are left out.
- A word with joints (`H-104`, `foo_bar()`, `getUser`, `two-factor`) is indexed as its parts and as one word. A query
  that ends in a figure (`H-104`, `v1.2`) is found whole only, with any joint or none; another also by its parts.
- Chinese, Japanese, Korean and other scripts whose words have no spaces between them or endings that stick to them are
  indexed character by character, and looked for in pairs of characters (in threes where these are parts of syllables).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple
from unicodedata import category, decimal, normalize

from service.text.stop_words import STOP_RUNS, STOP_WORDS

MAX_TOKEN = 64  # characters
MAX_TERMS = 64  # of a query that are looked for
MAX_QUERY = 10_000  # characters that are read

Term = tuple[str, ...]  # tokens that follow each other

_SYLLABLES = "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\uac00-\ud7a3"
_UNSPACED = _SYLLABLES + _KANA + _HAN + _HANGUL + "\u1100-\u11ff"
_VOICED = "\u3099\u309a\uff9e\uff9f"  # marks of a kana, where they are characters of their own
_GLUE = "\u00ad\u200c\u200d\u2060\ufeff"  # invisible within a word: soft hyphen, joiners, byte order mark
_PIECE = re.compile(
    f"(?P<one>[\u1100-\u115f][\u1160-\u11a7]?[\u11a8-\u11ff]?|[{_UNSPACED}][{_VOICED}]*)|[^{_UNSPACED}]+"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_IS_SYLLABLE, _IS_KANA, _IS_HANGUL = (re.compile(f"[{one}]") for one in (_SYLLABLES, _KANA, _HANGUL))
_OBJECT_MARKERS = frozenset("은는을를가")  # Korean particles that rarely end a noun of two syllables

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ACCENTS = re.compile(  # but for Cyrillic, where й is a letter
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
    """A word of a text and where it stands there. `joined`: its parts as one; `unspaced`: one sign of a run of such."""

    start: int
    end: int
    parts: Term
    joined: str = ""
    unspaced: bool = False

    @property
    def tokens(self) -> Term:
        return (*self.parts, self.joined) if self.joined else self.parts


def normalise(text: str) -> str:
    """`text` without what makes no difference to a search. Its length may change."""
    if text.isascii():
        return _CAMEL.sub("_", text).lower()
    text = _CAMEL.sub("_", normalize("NFKC", text)).casefold().translate(_LETTERS)
    text = normalize("NFC", _ACCENTS.sub("", normalize("NFD", text)))
    return "".join(str(decimal(sign)) if sign.isdecimal() else sign for sign in text)


def words(document: str) -> Iterator[Word]:
    """The words of a text, in order. Words without a letter or digit are left out."""
    chunk, _ = _patterns()
    for found in chunk.finditer(document):
        text = found[0]
        if text.isascii() or _IS_UNSPACED.search(text) is None:
            yield from _spaced(text, found.start())
            continue
        for piece in _PIECE.finditer(text):
            start = found.start() + piece.start()
            if piece["one"]:
                yield Word(start, start + len(piece[0]), (_sign(piece[0]),), unspaced=True)
            else:
                yield from _spaced(piece[0], start)


def terms(query: str) -> list[Term]:
    """What to look for: any of these. Common words count only where there are no others."""
    found = list(dict.fromkeys(_all_terms(query[:MAX_QUERY])))
    return ([term for term in found if not _is_common(term)] or found)[:MAX_TERMS]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A word with its joints, and a part of a normalised one. Python's `\\w` leaves out marks, as of Hindi vowels."""
    marks = "".join(chr(code) for code in range(0x300, 0x10000) if category(chr(code))[0] == "M")
    inner = rf"[\w{marks}{_GLUE}]+"
    joint = r"(?:[-‐‑./'’]|(?<=[0-9]),(?=[0-9]{3}(?![0-9])))"  # a comma in 1,024
    return re.compile(rf"{inner}(?:{joint}{inner})*"), re.compile(rf"[0-9]+|(?:[^\W\d_]|[{marks}])+")


@lru_cache(20_000)
def _sign(text: str) -> str:
    """One sign, normalised; a language has some thousands, each in a document a thousand times."""
    return normalise(text)


def _spaced(text: str, start: int) -> Iterator[Word]:
    if text.isascii() and text.isalpha() and text[1:].islower():  # as most are: a short way to the same
        yield Word(start, start + len(text), (text.lower()[:MAX_TOKEN],))
        return
    plain = _ELIDED.sub("", _ENDING.sub("", normalise(text))).replace(",", "")
    parts = tuple(_ARTICLE.sub("", part)[:MAX_TOKEN] for part in _patterns()[1].findall(plain))
    if parts:
        joined = "".join(parts)[:MAX_TOKEN]
        alone = len(parts) == 1 or joined.isdecimal()  # 1.5 is not 15
        yield Word(start, start + len(text), parts, "" if alone else joined)


def _all_terms(query: str) -> Iterator[Term]:
    run: list[str] = []
    end = -1
    for word in words(query):
        if run and not (word.unspaced and word.start == end):
            yield from _pairs(run)
            run = []
        if word.unspaced:
            run += word.parts
            end = word.end
        else:
            yield from _terms_of(word)
    yield from _pairs(run)


def _terms_of(word: Word) -> Iterator[Term]:
    if len(word.parts) == 1 or word.parts[-1][0].isdecimal():
        yield word.parts
    else:
        yield from ((part,) for part in word.parts)
    if word.joined:
        yield (word.joined,)


def _pairs(run: list[str]) -> Iterator[Term]:
    """Pairs, or threes, of signs that follow each other without a space."""
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


def _is_common(term: Term) -> bool:
    if len(term) == 1:
        return term[0] in STOP_WORDS or _IS_KANA.match(term[0]) is not None
    return term in _stop_terms()
