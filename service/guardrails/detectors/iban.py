"""Numbers of bank accounts: IBANs with the length of their country and the check digits of ISO 7064."""

from __future__ import annotations

import re

from service.guardrails.match import WAIT, Answer, Match, Window

_SHAPE = re.compile(r"([A-Za-z]{2})[ -]?[0-9][ -]?[0-9](?:[ .-]{0,2}[A-Za-z0-9]){10,30}")
_BEGIN = re.compile("([A-Za-z]{2})[ -]?[0-9][ -]?[0-9]")
# In capitals, its groups of digits on two lines.
_BROKEN = re.compile(
    r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){1,6} ?(?:\r?\n {0,4}(?:[0-9]{1,4}(?: ?[0-9]{1,4}){0,6} ?)?|\r?\Z)"
)
_LENGTHS_WORDS = (
    "AD24 AE23 AL28 AO25 AT20 AZ28 BA20 BE16 BF28 BG22 BH22 BI27 BJ28 BR29 BY28 CH21 CI28 CM27 CR22 "
    "CV25 CY28 CZ24 DE22 "
    "DJ27 DK18 DO28 DZ26 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 "
    "HU28 IE22 IL23 IQ23 "
    "IR26 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MA28 MC27 MD24 ME22 MG27 MK19 "
    "ML28 MN20 MR27 MT31 "
    "MU30 MZ25 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 "
    "SK24 SM27 SN28 SO23 "
    "ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_LENGTHS = {word[:2]: int(word[2:]) for word in _LENGTHS_WORDS.split()}


def match_iban(window: Window) -> Answer:
    """Match an IBAN, also in small letters, in groups, and broken over two lines between those."""
    begin = _BEGIN.match(window.text, window.start, window.group)
    length = _LENGTHS.get(begin[1].upper()) if begin is not None else None
    if length is None:
        return None
    shape = _SHAPE.match(window.text, window.start, window.group)
    found = _match(window, shape, length)
    if found is not None:
        return found
    broken = _BROKEN.match(window.text, window.start, window.end)
    if broken is None:
        return None
    return WAIT if broken.end() == window.end and not window.final else _match(window, broken, length)


def _match(window: Window, shape: re.Match[str] | None, length: int) -> Match | None:
    """Match as much of a shape as the number of a country has, if its check digits are right."""
    text, start = window.text, window.start
    end = _end_of(text, start, shape.end(), length) if shape is not None else None
    if end is None or text[end : end + 1].isalnum():
        return None
    number = re.sub(r"[ .\r\n-]", "", text[start:end]).upper()
    turned = "".join(str(int(character, 36)) for character in number[4:] + number[:4])
    return Match("iban", start, end) if int(turned) % 97 == 1 else None


def _end_of(text: str, start: int, end: int, length: int) -> int | None:
    """Return where `length` letters and digits end."""
    for place in range(start, end):
        length -= text[place] not in " .-\r\n"
        if length == 0:
            return place + 1
    return None
