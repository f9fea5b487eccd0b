"""Numbers of payment cards: the length of their brand, the check digit after Luhn."""

from __future__ import annotations

import re

from service.guardrails.detectors.context import Near, before, has_words, in_account_number, in_row
from service.guardrails.match import Match, Window

_DIGITS = re.compile(r"[0-9]{1,19}(?:[ .-]{1,2}[0-9]{1,7}){0,18}")
_SHORTEST, _LONGEST = 12, 19
_LEAST = re.compile(rf"(?:[ .-]*[0-9]){{{_SHORTEST}}}[0-9]*")
_GROUPS = re.compile(r"[0-9]+")
_NO_SIGNS = str.maketrans("", "", " .-")
_LONGER_BEFORE = re.compile(r"(?:[0-9][-./:]|[0-9]{4} |[A-Za-z]-)\Z")
_LONGER_AFTER = re.compile(r"[0-9]|[-./:][0-9]| [0-9]{4}(?![0-9/])|-[A-Za-z0-9]")
# Beginnings of the numbers of each brand, and their lengths.
_BRANDS = (
    (re.compile(r"4"), (16, 19)),
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|09|6|[89])"), (14, 16)),
    (re.compile(r"6(?:011|4[4-9]|5)"), (16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),
    (re.compile(r"62"), (16, 19)),
)
# Forms that count without words about cards.
_USUAL = re.compile(
    r"[0-9]{14,19}|[0-9]{4}(?P<s>[ .-])(?:[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{4}|[0-9]{6}(?P=s)[0-9]{4,5})"
)
_WORDS = (
    r"(?:credit|debit|bank|payment|kredit|debit|ec|giro|betaal|bank|prepaid)?[ -]?(?:cards?|karten?|"
    r"kaart)(?:en)?(?:nummer)?|"
    r"visa|master ?card|amex|american express|maestro|carte|carta|tarjeta|creditcard\w*|kreditkarte\w*|"
    r"pan|cc|diners|jcb"
)
# Digits as Luhn counts them: every second one is doubled, and 9 taken off where that makes two digits.
_ONCE = bytes.maketrans(b"0123456789", bytes(range(10)))
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def match_card(window: Window) -> Match | None:
    """Match the number of a card, also in groups of digits."""
    text, start = window.text, window.start
    digits = _DIGITS.match(text, start, window.group)
    if (
        digits is None
        or digits.end() - start < _SHORTEST
        or _LONGER_BEFORE.search(text, max(0, start - 5), start)
    ):
        return None
    if _USUAL.match(text, start, digits.end()) is None and not has_words(text, start):  # a cheap look first
        return None
    if in_account_number(text, start):
        return None
    for end, number in _candidates(text, start, digits.end()):
        if _LONGER_AFTER.match(text, end, window.group) or not _luhn(number):
            continue
        near = before(text, start, _WORDS)
        usual = _USUAL.fullmatch(text, start, end) is not None and _is_of_brand(number)
        if not usual and in_row(text, start, end, window.group):
            continue
        if near is Near.YES or (near is Near.NONE and usual):
            return Match("card", start, end)
    return None


def _candidates(text: str, start: int, end: int) -> list[tuple[int, str]]:
    """Return beginnings of a row of groups of digits that have the length of a card's number, the longest first."""
    found = list[tuple[int, str]]()
    least = _LEAST.match(text, start, end)
    if least is None:
        return found
    number = least[0].translate(_NO_SIGNS)
    if len(number) <= _LONGEST:
        found.append((least.end(), number))
    for group in _GROUPS.finditer(text, least.end(), end):
        number += group[0]
        if len(number) > _LONGEST:
            break
        found.append((group.end(), number))
    return found[::-1]


def _is_of_brand(number: str) -> bool:
    return any(len(number) in lengths and begin.match(number) for begin, lengths in _BRANDS)


def _luhn(number: str) -> bool:
    digits = number.encode()
    total = sum(digits[-1::-2].translate(_ONCE)) + sum(digits[-2::-2].translate(_TWICE))
    return total % 10 == 0 and len(set(number)) > 1
