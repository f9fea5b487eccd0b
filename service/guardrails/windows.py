"""Places of a text at which a match may begin, and as much text around each as is needed to decide."""

from __future__ import annotations

import re

from service.guardrails.detectors.months import MONTHS
from service.guardrails.match import WAIT, Answer, Match, Wait, Window
from service.guardrails.plain_stream import PlainStream
from service.guardrails.plan import Plan
from service.guardrails.vault import LITERAL, placeholder_at

WINDOW = 160  # characters in plain form that may have a say in what is decided at a place
WINDOW_RAW = 190  # the same in the text as it came
CONTEXT = 100  # characters before a place that are kept as context
_TOKEN = 80  # characters of a word before a sign in it

_BACK = re.compile(rf"(?:(?<![^\W_])(?:[A-Za-z]{{2}}|{MONTHS})\.?[ ]{{1,2}})?[^\s]*\Z", re.IGNORECASE)
_MORE = (
    r"[0-9(+@]|[A-Za-z]{1,2}[0-9]|[A-Za-z]{4}\s[0-9]|[A-Za-z](?![^\W_])|"
    rf"(?:(?:de|of|del|di|{MONTHS})(?![^\W_]))"
)
_GROUP = re.compile(rf"[^\s]*(?:(?:\s{{1,2}}|\s?[-/.,]\s)(?:{_MORE})[^\s]*)*", re.IGNORECASE)
_OPEN_END = re.compile(r"(?:\s{0,3}|\s?[-/.,]\s?)[^\W0-9_]{0,12}\s{0,2}\Z")


def begin_of_token(plain: PlainStream, place: int, least: int) -> int:
    """Return where the word before a place begins, with a month or two letters before it."""
    if place <= least:
        return place
    near = plain.place_within(plain.raw_place(place) - WINDOW_RAW)
    found = _BACK.search(plain.text, max(least, place - _TOKEN, near), place)
    return found.start() if found is not None else place


def next_start(plan: Plan, text: str, place: int) -> int:
    """Return the next place at which a match may begin, or the end."""
    found = plan.start.search(text, place)
    return found.start() if found is not None else len(text)


def decide(plan: Plan, plain: PlainStream, start: int, *, final: bool) -> Answer:
    """Decide whether a match begins at a place."""
    window = _window(plain, start, final=final)
    if isinstance(window, Wait):
        return WAIT
    return _decided(plan, window)


def _window(plain: PlainStream, start: int, *, final: bool) -> Window | Wait:
    text = plain.text
    limit = min(start + WINDOW, plain.place_within(plain.raw_place(start) + WINDOW_RAW))
    whole = limit < len(text) or limit == start + WINDOW
    found = _GROUP.match(text, start, limit)
    group = found.end() if found is not None else start
    if not whole and not final and (group == limit or _OPEN_END.match(text, group, limit)):
        return WAIT
    return Window(text, start, group, limit, final or whole)


def _decided(plan: Plan, window: Window) -> Answer:
    best: Match | None = None
    if plan.vault and window.text.startswith("[", window.start):
        end, arriving = placeholder_at(window.text, window.start, window.end)
        if arriving and not window.final:
            return WAIT
        if end is not None:
            return Match(LITERAL, window.start, end)
    for detector in plan.detectors:
        answer = detector(window)
        if answer is WAIT:
            return WAIT
        if isinstance(answer, Match) and (best is None or answer.end > best.end):
            best = answer
    for name, rule in plan.rules:
        end, is_open = rule.match(window.text, window.start, window.end, final=window.final)
        if is_open:
            return WAIT
        if end is not None and (best is None or end > best.end):
            best = Match(name, window.start, end)
    return best
