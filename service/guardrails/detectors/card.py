"""Numbers of payment cards: the length of their brand, the check digit after Luhn."""

from __future__ import annotations

import re

from service.guardrails.detectors.context import Near, before, in_account_number
from service.guardrails.match import Match, Window

_DIGITS = re.compile(r"[0-9]{1,19}(?:[ .-]{1,2}[0-9]{1,7}){0,18}")
_GROUPS = re.compile(r"[0-9]+")
_LONGER_BEFORE = re.compile(r"(?:[0-9][-.,/:]|[0-9]{4} |[A-Za-z]-)\Z")
_LONGER_AFTER = re.compile(r"[0-9]|[-.,/:][0-9]| [0-9]{4}(?![0-9/])|-[A-Za-z0-9]")
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


def match_card(window: Window) -> Match | None:
    """Match the number of a card, also in groups of digits."""
    text, start = window.text, window.start
    digits = _DIGITS.match(text, start, window.group)
    if digits is None or _LONGER_BEFORE.search(text, max(0, start - 5), start):
        return None
    if in_account_number(text, start):
        return None
    for end, number in _candidates(text, start, digits.end()):
        if _LONGER_AFTER.match(text, end, window.group) or not _luhn(number):
            continue
        near = before(text, start, _WORDS)
        usual = _USUAL.fullmatch(text, start, end) is not None and _is_of_brand(number)
        if near is Near.YES or (near is Near.NONE and usual):
            return Match("card", start, end)
    return None


def _candidates(text: str, start: int, end: int) -> list[tuple[int, str]]:
    """Return beginnings of a row of groups of digits that have the length of a card's number, the longest first."""
    found, number = list[tuple[int, str]](), ""
    for group in _GROUPS.finditer(text, start, end):
        number += group[0]
        if len(number) > 19:
            break
        if len(number) >= 12:
            found.append((group.end(), number))
    return found[::-1]


def _is_of_brand(number: str) -> bool:
    return any(len(number) in lengths and begin.match(number) for begin, lengths in _BRANDS)


def _luhn(number: str) -> bool:
    odd, even = number[-1::-2], number[-2::-2]
    total = sum(map(int, odd)) + sum(int(digit) * 2 - 9 * (digit > "4") for digit in even)
    return total % 10 == 0 and len(set(number)) > 1
