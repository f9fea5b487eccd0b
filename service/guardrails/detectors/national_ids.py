"""National identity, insurance and tax numbers, with their check digits.

The library `python-stdnum` checks them. A number whose form is weak counts only where words tell of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from service.guardrails.detectors.context import Near, after, before, in_column, in_row
from service.guardrails.match import WAIT, Answer, Match, Window

_ANY = (
    r"id[ -]?(?:nummer|number|no|nr)|identity|identification\w*|identifi[ck]a[tczs]\w*|identit\w*|"
    r"national id|personal(?:ausweis\w*)?|"
    r"ausweis\w*|"
    r"citizen|tax ?id|tin|social security|sozialversicherung\w*|sécurité sociale|"
    r"seguridad social|ssn"
)


@dataclass(frozen=True, slots=True)
class _Number:
    """Kind of number. `alone`: counts without words too, in the form `certain` or, where there is none, in any."""

    shape: re.Pattern[str]
    is_valid: Callable[[str], bool]
    words: str
    alone: bool = False
    certain: re.Pattern[str] | None = None


@cache
def _checked_by(module: str) -> Callable[[str], bool]:
    valid: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid
    return valid


def _by(module: str) -> Callable[[str], bool]:
    return lambda number: _checked_by(module)(number)


def _is_ssn(number: str) -> bool:
    """Return whether a US number may have been given out: its parts are none of those that are kept free."""
    digits = re.sub("[^0-9]", "", number)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area[0] == "9":  # for taxpayers without a social security number
        return 50 <= int(group) <= 65 or 70 <= int(group) <= 99
    return area not in ("000", "666") and group != "00" and serial != "0000"


def _is_nino(number: str) -> bool:
    return number[:2].upper() not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def _is_bsn(number: str) -> bool:
    digits = re.sub("[^0-9]", "", number).zfill(9)
    return digits.strip("0") != "" and _checked_by("nl.bsn")(digits)


def _is_nir(number: str) -> bool:
    digits = re.sub("[^0-9A-Za-z]", "", number).upper()
    if len(digits) == 13:
        return digits[3:5] <= "12" or digits[3:5] >= "20"
    return _checked_by("fr.nir")(digits) or _nir_key(digits)


def _nir_key(digits: str) -> bool:
    number = digits[:13].replace("2A", "19").replace("2B", "18")
    return re.fullmatch("[0-9]{13}", number) is not None and 97 - int(number) % 97 == int(digits[13:])


def _compiled(shape: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{shape})(?![^\W_])(?![-./][0-9A-Za-z])", re.IGNORECASE)


_CODICE = r"[A-Z]{3} ?[A-Z]{3} ?[0-9LMNP-V]{2} ?[ABCDEHLMPRST] ?[0-9LMNP-V]{2} ?[A-Z] ?[0-9LMNP-V]{3} ?[A-Z]"
_NIR = r"[1-478][ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?(?:[0-9]{2}|2[AB])[ .-]?[0-9]{3}[ .-]?[0-9]{3}"
_NUMBERS = (
    _Number(
        _compiled(r"[0-9]{3}(?P<s>[ .-]?)[0-9]{2}(?P=s)[0-9]{4}"),
        _is_ssn,
        r"ssn|ssns|s\.s\.n\.?|social security|social(?! (?:media|network|housing|work|club|event|post))|"
        r"itin|tin|tax ?id|taxpayer|sozialversicherungsnummer|"
        r"numéro de sécurité sociale|seguro social|previdenza sociale|burgerservicenummer",
        alone=True,
        certain=re.compile(r"[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}"),
    ),
    _Number(
        _compiled(
            r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}(?:[ -]?[A-D])?"
        ),
        _is_nino,
        r"nino|ni|n\.i\.|national insurance|insurance|ni-?nummer",
        alone=True,
        certain=re.compile(r"(?:[A-Z]{2} [0-9]{2} [0-9]{2} [0-9]{2} |[A-Z]{2}[0-9]{6})[A-D]", re.IGNORECASE),
    ),
    _Number(
        _compiled(r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}"),
        _by("gb.nhs"),
        r"nhs|patient|health service",
    ),
    _Number(
        _compiled(r"[1-9][0-9](?:[ /-]?[0-9]{3}){3}"),
        _by("de.idnr"),
        r"steuer\w*|idnr|id-nr|tin|tax\w*|fiscale?|fiscal|belasting\w*|identifikations\w*|impôt\w*",
        alone=True,
        certain=re.compile(r"[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}"),
    ),
    _Number(
        _compiled(rf"{_NIR}[ .-]?(?:clé )?[0-9]{{2}}"),
        _is_nir,
        r"nir|insee|sécu\w*|sécurité sociale",
        alone=True,
    ),
    _Number(_compiled(_NIR), _is_nir, r"nir|insee|sécu\w*|sécurité sociale|social security"),
    _Number(
        _compiled(r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}[ -]?[A-HJ-NP-TV-Z]"),
        _by("es.dni"),
        r"dni|d\.n\.i\.?|nif|n\.i\.f\.?|documento",
        alone=True,
    ),
    _Number(
        _compiled(r"[XYZ][ -]?[0-9]\.?[0-9]{3}\.?[0-9]{3}[ -]?[A-HJ-NP-TV-Z]"),
        _by("es.nie"),
        r"nie|n\.i\.e\.?|extranjero",
        alone=True,
    ),
    _Number(_compiled(_CODICE), _by("it.codicefiscale"), r"codice fiscale|c\.?f\.?|fiscale", alone=True),
    _Number(
        _compiled(r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}|[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{3}|[0-9]{8,9}"),
        _is_bsn,
        r"bsn|b\.s\.n\.?|burgerservice\w*|sofi\w*|citizen service|burgernummer",
    ),
    _Number(_compiled(r"[0-9]{11}|[0-9]{6}[ -][0-9]{5}"), _by("pl.pesel"), r"pesel\w*"),
)
_ANY_SHAPE = re.compile("|".join(one.shape.pattern for one in _NUMBERS), re.IGNORECASE)  # a cheap look first
_LONGER_BEFORE = re.compile(r"(?:[0-9][-./]|[A-Za-z]-|[#$€£_])\Z")


def match_national_id(window: Window) -> Answer:
    """Match a national number whose check digits are right."""
    text, start = window.text, window.start
    if _ANY_SHAPE.match(text, start, window.group) is None:
        return None
    if _LONGER_BEFORE.search(text, max(0, start - 2), start) is not None:
        return None
    waits = False
    for number in _NUMBERS:
        found = number.shape.match(text, start, window.group)
        if found is None or not number.is_valid(re.sub("[ ./]", "", found[0])):
            continue
        answer = _told(number, window, found)
        waits = waits or answer is WAIT
        if isinstance(answer, Match):
            return answer
    return WAIT if waits else None


def _told(number: _Number, window: Window, found: re.Match[str]) -> Answer:
    match = Match("national_id", window.start, found.end())
    certain = number.certain is None or number.certain.fullmatch(found[0]) is not None
    words = rf"{number.words}|{_ANY}"
    if in_column(window, words):
        return match
    if not (number.alone and certain) and in_row(window.text, window.start, window.start, window.start):
        return None
    near = before(window.text, window.start, words)
    if near is Near.YES:
        return match
    if number.alone and certain and near is Near.NONE:
        return match
    told = after(window, found.end(), words)
    if told is WAIT:
        return WAIT
    return match if told else None
