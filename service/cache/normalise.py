"""Near-identical questions: the plain form of a question is the cache key shared by all its spellings.

A wrong answer costs more than a missed one, so two questions share a plain form only when they differ in nothing that
can carry meaning; in doubt they do not. Rules:

- Unicode: composed form and width are unified. Characters that stand for others (²; ½; the ligature ﬁ; ℃) have no plain
  form.
- Spacing, line breaks around a courtesy, and end marks are dropped. Kept: a final `?` if the first word does not make
  it a question, `!` after a figure or a single letter (a factorial), an ellipsis, and all marks inside.
- Capitals: lower the first word if it is a usual beginning, and "I" after a verb such as "can". Lower everything if
  capitals carry no information: text all in capitals or with One On Every Word, unless one of its words has two
  readings (US, Polish). Letters are lowered, never folded: ß is not ss, İ is not i. Any other capital is kept.
- Leading courtesies are dropped if followed by a mark or line break and a question, or, for "please" and those of
  several words, by a direct question ("could you tell me what is …"). Trailing ones are dropped after a question and a
  mark or line break, except greetings and where they may end a list ("cheers, thanks?"); a bare "please" also without a
  mark if no `?` follows it. None are dropped in a question about words ("say", "mean", "French", "button"), and no
  leading one if the question points back: "thanks, what is that in Polish?" asks about "thanks".

Text that is material rather than a question (code, quotations, lists, several lines, something after a colon) and long
text have no plain form: only identical text matches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from unicodedata import decomposition, normalize

from service.cache import normalise_words

MAX_CHARACTERS = 400  # maximum characters of a question with a plain form
VERSION = b"3"  # of the rules; part of the key, so answers stored under older rules are not found

# Signs of material: code, markup, addresses, formulas and quotations.
_MATERIAL = re.compile(
    r"""[`{}\[\]<>=|\\^*_~"“”„«»‹›「」『』《》\n]|\w\(|://|:(\s|$)|(^|\s)['‘’‚]|[a-z][A-Z]|\w\.\w*[^\W\d]"""
)
_APART = re.compile(r"[^\S\n]+([?!,;]+|[.…]+$)(?=\s|$)")  # punctuation separated from its word
_MARKS = ".,;?!…\n"
# "which key is ;" asks about that mark; French sets off its "?".
_APART_AT_THE_END = re.compile(r"\s(?!\?$)[?!,;.…]+$")
_GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff]")
_END = re.compile(r"[.,;?!\n]+$")
_ELLIPSIS = re.compile(r"\.\.[.?!]*$")
_FACTORIAL = re.compile(r"(?:\d|\b\w)[)%]?!+[.,;?]*$")
_WIDTHS = ("<wide>", "<narrow>", "<noBreak>")


class Normaliser:
    """Plain forms of questions. `stop_phrases` are the courtesies dropped where set apart from the question."""

    def __init__(self, stop_phrases: Sequence[str]) -> None:
        phrases = {tuple(_bare(word) for word in _words(phrase)) for phrase in stop_phrases}
        self._phrases = sorted(phrases - {()}, key=len, reverse=True)
        self._edges = {phrase[place] for phrase in self._phrases for place in (0, -1)}

    def of(self, text: str) -> str | None:
        """Return the plain form of a question; None: only identical text is the same question."""
        text = text.strip()
        if len(text) > MAX_CHARACTERS or not (text.isascii() or all(map(_is_its_own_form, text))):
            return None
        if _APART_AT_THE_END.search(text):
            return None
        words = _words(text)
        question = self._without_courtesies(words) if words else words
        if len(question) < 2 or _MATERIAL.search(" ".join(question).rstrip("\n")):
            return None
        return _in_one_case(_without_end_marks(question))

    def _without_courtesies(self, words: list[str]) -> list[str]:
        if self._edges.isdisjoint((_bare(words[0]), _bare(words[-1]))):
            return words
        question_words = self._after_opening(words)
        if len(question_words) < len(words) and not normalise_words.POINTING.isdisjoint(
            map(_bare, question_words)
        ):
            return words
        question = self._before_closing(question_words)
        return question if normalise_words.ABOUT_WORDS.isdisjoint(map(_bare, question)) else words

    def _after_opening(self, words: list[str]) -> list[str]:
        """Drop leading courtesies that are set apart; return an empty list if nothing else is left."""
        start = at = 0
        while size := self._phrase_at(words, at):
            at += size
            lead_in = size > 1 or _bare(words[at - 1]) == normalise_words.PLEASE
            apart = words[at - 1][-1] in _MARKS and _is_question(words[at:])
            named = at == size and words[at - 1][-1] in _MARKS
            if named and not normalise_words.PRONOUNS.isdisjoint(map(_bare, words[at:])):
                return words  # "Hello! What is it in Danish?"
            if apart or (lead_in and _is_direct_question(words[at:])):
                start = at
        return words[start:] if at < len(words) else []

    def _before_closing(self, words: list[str]) -> list[str]:
        """Drop trailing courtesies if all of them are set apart ("hi, thanks" may be a list)."""
        end = len(words)
        while size := self._phrase_before(words, end):
            end -= size
        return words[:end] if end == 0 or _is_apart(words[:end], words[end:]) else words

    def _phrase_at(self, words: list[str], at: int) -> int:
        """Count the words of the longest courtesy starting at `at`; 0: none."""
        return next((len(one) for one in self._phrases if _is_phrase(words[at : at + len(one)], one)), 0)

    def _phrase_before(self, words: list[str], end: int) -> int:
        """Return the length in words of the longest courtesy phrase before `end`, 0 if none.

        Greetings are not looked for.
        """
        return next(
            (
                len(one)
                for one in self._phrases
                if one[0] not in normalise_words.GREETINGS
                and _is_phrase(words[max(0, end - len(one)) : end], one)
            ),
            0,
        )


def _words(text: str) -> list[str]:
    """Split text into words with their punctuation; the last word of a line ends with the line break."""
    plain = text.strip()
    if not plain.isascii():
        plain = normalize("NFKC", plain).replace("’", "'")
    words: list[str] = []
    for line in _APART.sub(r"\1", plain).splitlines():
        if words and not words[-1].endswith("\n"):
            words[-1] += "\n"
        words += line.split()
    return words


def _bare(word: str) -> str:
    """Strip a word of punctuation, and lower it."""
    return word.lstrip("¿¡").rstrip(_MARKS).lower()


def _is_phrase(words: list[str], phrase: tuple[str, ...]) -> bool:
    if len(words) != len(phrase):
        return False
    return (*(word.lower() for word in words[:-1]), _bare(words[-1])) == phrase


def _is_apart(question: list[str], closing: list[str]) -> bool:
    """Return whether trailing courtesies are set apart from a complete question."""
    last = question[-1]
    if not closing or last[-1] not in _MARKS:
        please = [word.rstrip(".!\n").lower() for word in closing] == [normalise_words.PLEASE]
        whole = len(question) > 2 and last.lower() not in normalise_words.INCOMPLETE
        return please and whole and _is_question(question)
    listed = last[-1] == "," and "?" in closing[-1] and any("," in word for word in question[:-1])
    return not listed and (_is_question(question) or ("?" in last and len(question) > 2))


def _is_question_word(word: str) -> bool:
    return _bare(word).partition("'")[0] in normalise_words.QUESTION_WORDS


def _is_question(words: list[str]) -> bool:
    """Return whether the words begin as a complete question does."""
    return len(words) > 1 and _is_question_word(words[0])


def _is_direct_question(words: list[str]) -> bool:
    """Return whether the words begin with "what is", "how do" and the like: "tell me when it rains" is no question."""
    if len(words) < 3:
        return False
    first, second = _bare(words[0]), _bare(words[1])
    return first in normalise_words.INTERROGATIVES and second in normalise_words.VERBS


def _without_end_marks(words: list[str]) -> list[str]:
    words = [words[0].lstrip("¿¡") or words[0], *words[1:-1], words[-1].rstrip("\n")]
    last = words[-1]
    if _ELLIPSIS.search(last):
        return words
    shortened = last.rstrip(".,;?\n") if "!" in last and _FACTORIAL.search(last) else _END.sub("", last)
    marks = last[len(shortened) :]
    if ";" in marks and any(map(_GREEK.search, words)):  # `;` is the question mark on Greek keyboards
        marks = "?"
    if "?" in marks and not _is_question_word(words[0]):
        shortened += "?"
    return [*words[:-1], shortened] if shortened else words[:-1]


def _in_one_case(words: list[str]) -> str:
    text = " ".join(words)
    if text.isascii() and _tells_nothing_by_case(text, words):
        return text.lower()
    first = words[0]
    if first.lower() in normalise_words.FIRST_WORDS and first[1:] == first[1:].lower():
        words = [first.lower(), *words[1:]]
    rest = [
        "i" if word == "I" and before.lower() in normalise_words.BEFORE_I else word
        for before, word in pairwise(words)
    ]
    return " ".join([words[0], *rest])


def _tells_nothing_by_case(text: str, words: list[str]) -> bool:
    capitals = text.isupper()
    titled = all(word[:1] == word[:1].upper() and word[1:] == word[1:].lower() for word in words)
    if not (capitals or titled):
        return False
    bare = [_bare(word) for word in words]
    if not normalise_words.TWO_READINGS.isdisjoint(bare):
        return False
    if capitals:
        return normalise_words.ACRONYMS.isdisjoint(bare)
    return not normalise_words.SMALL_WORDS.isdisjoint(bare[1:])


def _is_its_own_form(sign: str) -> bool:
    """Return whether NFKC keeps a character's meaning; False for compatibility forms: 5² would become 52."""
    form = decomposition(sign)
    if not form or sign.isspace() or sign == "…":
        return True
    return form.startswith(_WIDTHS) if form.startswith("<") else " " in form
