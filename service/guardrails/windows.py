"""Places of a text at which a match may begin, and as much text around each as is needed to decide."""

from __future__ import annotations

import re

from service.guardrails.detectors.months import MONTHS
from service.guardrails.match import WAIT, Answer, Match, Wait, Window
from service.guardrails.plain_stream import PlainStream
from service.guardrails.plan import Detector, Plan
from service.guardrails.vault import LITERAL, placeholder_at

WINDOW = 160  # characters in plain form that may have a say in what is decided at a place
WINDOW_RAW = 190  # the same in the text as it came
CONTEXT = 100  # characters before a place that are kept as context
MOST_DASHES = 4  # that `-----` may begin with
_LONGEST_MONTH = 14  # with a sign before it
_TOKEN = 80  # characters of a word before a sign in it

_OPENING = "\"'([{<>«„“*|:="
_BEGUN_BEFORE = re.compile(rf"(?:[A-Z]{{2}}|(?i:{MONTHS})\.?)")  # IBAN, month
# An `[at]` after a space, as much as has arrived: an address begins before it.
_AT_BEGUN = re.compile(r"(?:[(\[{](?:[aAäc][A-Za-z]{0,6}[)\]}]?)?)?\Z|[(\[{](?:at|AT|ät|arroba|chez)[)\]}]")
_WORD_BEFORE = re.compile(r"[\w%+'-] ")
_MORE = (
    r"[0-9(+@]|[A-Za-z]{1,2}[0-9]|[A-Za-z]{4}\s[0-9]|[A-Za-z](?![^\W_])|"
    rf"(?:(?:de|of|del|di|{MONTHS})(?![^\W_]))"
)
_GROUP = re.compile(rf"[^\s]*(?:(?:[ \t]{{1,2}}|[ \t]?[-/.,][ \t])(?:{_MORE})[^\s]*)*", re.IGNORECASE)
_WORD = re.compile(r"[^\s]*")
_OPEN_END = re.compile(r"(?:\s{0,3}|\s?[-/.,]\s?)[^\W0-9_]{0,12}\s{0,2}\Z")


def begin_of_token(plain: PlainStream, place: int, least: int) -> int:
    """Return where the word before a place begins, with a month or two letters before it."""
    text = plain.text
    near = plain.place_within(plain.raw_place(place) - WINDOW_RAW)
    least = max(least, place - _TOKEN, near)
    if place <= least:
        return place
    begin = _begin_of_word(text, least, place)
    if begin - 1 > least and _WORD_BEFORE.match(text, begin - 2) and _AT_BEGUN.match(text, begin):
        return _begin_of_word(text, least, begin - 1)
    end = begin
    while end > least and begin - end < 2 and text[end - 1] == " ":
        end -= 1
    if least < end < begin:
        before = _begin_of_word(text, max(least, end - _LONGEST_MONTH), end)
        while text[before] in _OPENING:
            before += 1
        if _BEGUN_BEFORE.fullmatch(text, before, end) and not text[before - 1 : before].isalnum():
            return before
    return begin


def _begin_of_word(text: str, least: int, place: int) -> int:
    """Return where the characters that are no white space begin before a place."""
    begin = max(text.rfind(" ", least, place), text.rfind("\n", least, place), text.rfind("\t", least, place))
    return max(least, begin + 1)


def next_start(plan: Plan, text: str, place: int, *, final: bool) -> int:
    """Return the next place at which a match may begin; the end, or some dashes before it, if there is none."""
    found = plan.start.search(text, place)
    if found is not None:
        return found.start()
    dashes = 0 if final else len(text) - len(text.rstrip("-"))
    return max(place, len(text) - min(dashes, MOST_DASHES))


def decide(plan: Plan, plain: PlainStream, start: int, column: str, *, final: bool) -> Answer:
    """Decide whether a match begins at a place. `column`: the heading of the column that it is in."""
    window = _window(plain, start, final=final)
    if isinstance(window, Wait):
        return WAIT
    return _decided(plan, window._replace(column=column) if column else window)


def _window(plain: PlainStream, start: int, *, final: bool) -> Window | Wait:
    text = plain.text
    limit = min(start + WINDOW, plain.place_within(plain.raw_place(start) + WINDOW_RAW))
    whole = limit < len(text) or limit == start + WINDOW
    group = _end(_GROUP, text, start, limit)
    if not whole and not final and (group == limit or _OPEN_END.match(text, group, limit)):
        return WAIT
    if group == start + WINDOW:  # a row of numbers as long as that is a table
        group = _end(_WORD, text, start, limit)
    return Window(text, start, group, limit, final or whole, whole)


def _end(pattern: re.Pattern[str], text: str, start: int, limit: int) -> int:
    found = pattern.match(text, start, limit)
    return found.end() if found is not None else start


def _detectors(plan: Plan, window: Window) -> list[Detector]:
    """Return those of whose matches the window has the first character and enough digits."""
    group = window.text[window.start : window.group]
    digits = sum(map(group.count, "0123456789"))
    return [one for least, one in plan.detectors_at(window.text[window.start]) if digits >= least]


def _decided(plan: Plan, window: Window) -> Answer:
    best: Match | None = None
    if plan.vault and window.text.startswith("[", window.start):
        end, arriving = placeholder_at(window.text, window.start, window.end)
        if arriving and not window.final:
            return WAIT
        if end is not None:
            return Match(LITERAL, window.start, end)
    for detector in _detectors(plan, window):
        answer = detector(window)
        if answer is WAIT:
            return WAIT
        if isinstance(answer, Match) and (best is None or answer.end > best.end):
            best = answer
    for name, rule in plan.rules_at(window.text[window.start]):
        end, is_open = rule.match(window.text, window.start, window.end, final=window.final)
        if is_open:
            return WAIT
        if end is not None and (best is None or end > best.end):
            best = Match(name, window.start, end)
    return best
