"""Places of a text at which a match may begin, and as much text around each as is needed to decide."""

from __future__ import annotations

import re

from service.guardrails.match import WAIT, Answer, Match, Wait, Window
from service.guardrails.plain_stream import PlainStream
from service.guardrails.plan import Plan
from service.guardrails.vault import LITERAL, placeholder_at

WINDOW = 160  # characters in plain form that may have a say in what is decided at a place
WINDOW_RAW = 190  # the same in the text as it came
CONTEXT = 100  # characters before a place that are kept as context
_TOKEN = 80  # characters of a word before a sign in it

MONTHS = (
    "jan(?:uary|uar|vier)?|januari|ene(?:ro)?|gen(?:naio)?|feb(?:ruary|ruar|ruari|rero|braio)?|f[ée]v(?:rier)?|"
    "mar(?:ch|s|zo|t)?|m[äa]rz|maart|mrt|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|may|mai|mayo|mag(?:gio)?|mei|"
    "june?|juni|juin|junio|giu(?:gno)?|july?|juli|juil(?:let)?|julio|lug(?:lio)?|aug(?:ust|ustus)?|ao[ûu]t|"
    "ago(?:sto)?|sept?(?:ember|embre|iembre|tember)?|set(?:tembre)?|oct(?:ober|obre|ubre)?|okt(?:ober)?|"
    "ott(?:obre)?|nov(?:ember|embre|iembre)?|de[cz](?:ember)?|d[ée]c(?:embre)?|dic(?:iembre|embre)?"
)
_START = re.compile(r"(?<![0-9A-Za-z\u00c0-\u024f])[^\W_]|[+(\[]|-----|\Z")
_BACK = re.compile(rf"(?:(?<![^\W_])(?:[A-Za-z]{{2}}|{MONTHS})\.?[ ]{{1,2}})?[^\s]*\Z", re.IGNORECASE)
_MORE = (
    r"[0-9(+@]|(?:[A-Za-z]{1,2}[0-9])|(?:[A-Z]{4}|[a-z]{4}|[A-Za-z])(?![^\W_])|"
    rf"(?:(?:de|of|del|di|{MONTHS})(?![^\W_]))"
)
_GROUP = re.compile(rf"[^\s]*(?:(?:\s{{1,2}}|\s?[-/.,]\s)(?:{_MORE})[^\s]*)*", re.IGNORECASE)
_OPEN_END = re.compile(r"(?:\s{0,3}|\s?[-/.,]\s?)[^\W0-9_]{0,12}\Z")


def begin_of_token(plain: PlainStream, place: int, least: int) -> int:
    """Return where the word before a place begins, with a month or two letters before it."""
    if place <= least:
        return place
    near = plain.place_within(plain.raw_place(place) - WINDOW_RAW)
    found = _BACK.search(plain.text, max(least, place - _TOKEN, near), place)
    return found.start() if found is not None else place


def next_start(text: str, place: int) -> int:
    """Return the next place at which a match may begin, or the end."""
    found = _START.search(text, place)
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
    return best
