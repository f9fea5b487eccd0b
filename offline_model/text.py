"""Text analysis: words, stems, sentences, weights and overlap with a question."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_STOP_WORD_LIST = (
    "a about after all also am an and any are as at be been but by can could did do does each for from "
    "get give had has have he her here him his how i if in into is it its just let like many may me more "
    "most much must my no not of on one only or other our out over own please same she should so some "
    "such tell than that the their them then there these they this those to too under up us use using "
    "very was we were what when where which while who whom whose why will with would you your yes i'm "
    "it's what's"
)
STOP_WORDS = frozenset(_STOP_WORD_LIST.split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_BREAK = re.compile(
    r"\n\s*\n"  # a paragraph ends
    r"|\n(?=\s*(?:[-*+#|>]|\d+[.)])\s)"  # a list item, heading or table row begins
    r"|(?<=[.!?])[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_]*[A-Z0-9])"  # a sentence ends and the next begins
)
_LEAD = re.compile(r"\s*(?:[-*+>|]\s+|\d+[.)]\s+)?")
_HEADING = re.compile(r"\s*#{1,6}\s+(.+)")


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Stem a word crudely: refund, refunds, refunded and refunding become one."""
    for ending, put, least in (
        ("ies", "y", 3),
        ("ing", "", 3),
        ("ed", "", 3),
        ("ly", "", 4),
        ("es", "e", 3),
        ("s", "", 3),
    ):
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            word = word[: -len(ending)] + put
            if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


@lru_cache(maxsize=4096)
def stems(text: str) -> frozenset[str]:
    """Return the stems of all words but stop words."""
    return frozenset(stem(word) for word in words(text) if word not in STOP_WORDS)


def words(text: str) -> list[str]:
    """Split a text into lower-case words, in order."""
    return _WORD.findall(text.replace("_", " ").lower().replace("’s", "").replace("'s", ""))


@dataclass(frozen=True)
class Sentence:
    """Sentence, text[start:end] of its source; `around` holds the stems of the heading above."""

    start: int
    end: int
    text: str
    stems: frozenset[str]
    around: frozenset[str]

    @property
    def plain(self) -> str:
        """Return the sentence on one line, without emphasis marks."""
        return " ".join(self.text.split()).replace("**", "").replace("`", "")


@lru_cache(maxsize=1024)
def sentences(text: str) -> tuple[Sentence, ...]:
    """Split a text into sentences. Headings are no sentences, but go into `around` of those below."""
    found: list[Sentence] = []
    around: frozenset[str] = frozenset()
    edges = [0, *(edge for m in _BREAK.finditer(text) for edge in (m.start(), m.end())), len(text)]
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        part = text[begin:end]
        heading = _HEADING.match(part)
        if heading:
            head, _, rest = part.partition("\n")
            around = stems(head)
            begin, part = begin + len(part) - len(rest), rest
        lead = _LEAD.match(part)
        start = begin + (lead.end() if lead else 0)
        stop = begin + len(part.rstrip())
        if stop > start:
            body = text[start:stop]
            found.append(Sentence(start, stop, body, stems(body), around))
    return tuple(found)


def weights(wanted: Iterable[str], material: Sequence[frozenset[str]]) -> dict[str, float]:
    """Weigh each wanted stem by its rarity in the material (inverse document frequency)."""
    count = len(material)
    return {s: math.log(1 + count / (0.5 + sum(s in m for m in material))) for s in wanted}


def overlap(wanted: frozenset[str], given: frozenset[str]) -> int:
    """Count wanted stems among the given ones, prefixes included (charg in chargeback)."""
    return sum(
        any(w == g or (len(w) > 3 and len(g) > 3 and (w.startswith(g) or g.startswith(w))) for g in given)
        for w in wanted
    )


def quote(text: str, most: int = 400) -> str:
    """Quote a text on one line, cut at a word when longer than `most`."""
    line = " ".join(text.split())
    if len(line) > most:
        line = line[:most].rsplit(" ", 1)[0] + " …"
    return f"“{line}”"
