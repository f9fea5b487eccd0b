"""Phone numbers: international ones, and national ones whose form or whose context tells them.

The library `phonenumbers` checks a number's length and prefix in its country. It is imported at the first number.
"""

from __future__ import annotations

import re
from functools import lru_cache

from service.guardrails.detectors.context import (
    THINGS,
    Near,
    after,
    before,
    in_account_number,
    in_column,
    in_row,
)
from service.guardrails.match import WAIT, Answer, Match, Wait, Window

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "AT", "CH", "BE", "IE", "PT")
_EXTENSION = r"(?:[ ,]{0,2}(?:ext\.?|extension|x|durchwahl|poste|int\.?|toestel)[ .]?[0-9]{1,5}(?![0-9]))?"
# Groups of digits with at least one sign between them: without, a long number would be read in too many ways.
# A full stop and a space end a sentence.
_SEPARATED = r"(?:(?:[ -]|\.(?! )|/| / |\)[ -]?| ?\(){1,2}[0-9]{1,12}){0,8}\)?"
_SHAPE = re.compile(rf"\(?(?:\+|00)?[ ]?\(?[0-9]{{1,14}}{_SEPARATED}{_EXTENSION}(?![0-9])", re.IGNORECASE)
_EXTENSION_AT = re.compile(r"[ ,]{0,2}(?:ext|x|d|poste|int|toe)[a-z]*[ .]{0,2}[0-9]{1,5}\Z", re.IGNORECASE)
_LONGER_BEFORE = re.compile(r"(?:[0-9][-./: ]|[A-Za-z]-|[#_]|[$€£] ?)\Z")
_LONGER_AFTER = re.compile(
    r"[^\W]|[-/:.][0-9]|[-_](?!(?:office|fax|home|work|mobile|cell|tel))[A-Za-z]| ?[%€£$°]", re.IGNORECASE
)
_UNITS = re.compile(
    r"[ ]?(?:eur|euros?|usd|dollars?|gbp|pounds?|chf|zł|pln|million|mio|mrd|milliard|people|inhabitants|"
    r"einwohner|habitants|"
    r"habitantes|abitanti|inwoners|km|kg|mb|gb|bytes?|ms|rows|users|views|units|stück|pieces|"
    r"tonnes?)(?![^\W_])",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:[0-9]{1,2}([-./ ])[0-9]{1,2}\1(?:19|20)[0-9]{2}|(?:19|"
    r"20)[0-9]{2}([-./ ])[0-9]{1,2}\2[0-9]{1,2})(?![0-9])"
)
_NO_DIGITS = re.compile("[^0-9]+")
_YEARS = re.compile("(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)[0-9]{2}")
_DECIMAL = re.compile(r"[0-9]+\.[0-9]{1,2}")
_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\.?[0-9])")  # of IP
# Groups that need not be valid in any of the countries, where words tell of a phone.
_GROUPED = re.compile(r"(?:[0-9]-|\([0-9]{1,4}\) ?)?[0-9]{2,5}(?:(?:[ .-]| ?/ ?)[0-9]{2,8}){1,4}")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:[ .]000)+")
_WORDS = (
    r"tel|t[ée]l|tel[eé]f\w*|phone\w*|telephone|mobile?s?|cell|cellphone|fax|call(?:ed|ing)?|ring|"
    r"text (?:me|him|her|us|them|to)|texted|sms|whatsapp|signal|"
    r"handy(?:s|nr|nummern?)?|mobil(?:e[rn]?|nr|nummern?|telefon\w*|funk\w*)?|rufnummer\w*|durchwahl|anruf\w*|anzurufen|rufen|ruf|erreich\w*|rückruf\w*|"
    r"telefax|festnetz\w*|"
    r"rispond\w*|contesta\w*|joignables?|téléphon\w*|portable|appel\w*|rappel\w*|joindre|joignable|"
    r"tel[eé]fono\w*|m[óo]v|móvil|movil|fijo|fixe|fisso|ll[aá]m\w*|celular|contact\w*|localiz\w*|"
    r"cellulare|chiam\w*|richiam\w*|telefon(?:[oia]|are|isch\w*|nr|nummern?)?|recapito|contatt\w*|"
    r"telefoon\w*|mobiel\w*|bel|bellen|gebeld|belt|bereik\w*|06-nummer|"
    r"(?:answering|available) at|messages? to|registered|hotline|helpline|dial|reach(?:ed|able)?|"
    r"landline|telegram|viber|sim|zadzwoń|kontakt\w*|voicemail|callback|pager|"
    r"(?:my|his|her|your|our|their|new|work|home|office|emergency) number|(?:mein|sein|ihr|dein|unser|"
    r"neu)e nummer|"
    r"(?:mon|son|ton|votre|notre) numéro|(?:mi|su|tu|nuestro) número|(?:mio|suo|tuo|nostro) numero|"
    r"(?:mijn|zijn|haar|uw|je|ons) nummer"
)
# Things of their own that have a word about phones in their name.
_THINGS = (
    r"[\w-]*ids?|form\w*|contracts?|polic(?:y|ies)|claims?|licen[cs]e|iccid|imsi|meters?|posts?|documents?|pages?|"
    r"identifiants?|contrats?|contratos?|contratt[oi]|contract\w*|polizza|póliza|police|polis\w*|"
    r"[\w-]*vertrag\w*|[\w-]*zähler\w*|formul\w*|document[oi]s?|dokument\w*|konto\w*"
)
_OTHERS = (
    r"appels? d['’]offres|contact forms?|formulaires? de contact|formularios? de contacto|"
    r"modul[oi] di contatto|contactformulier\w*|"
    r"sim card|cells? [a-z][0-9]+|phone (?:orders?|models?|cases?|screens?)|call (?:graphs?|cent(?:er|re)s?|stacks?)|"
    r"fax machines?|"
    r"mobile (?:apps?|traffic)|signal (?:strength|level)|text (?:size|length)"
)
# Numbers about phones, in headings of columns.
_NUMBERS = "costs?|price|model|type|plan|bill|count|usage|minutes|ids?|imei|calls|modell|tarif|kosten|vertrag"
_CERTAIN = re.compile(
    r"(?:1[-. ])?\([2-9][0-9]{2}\)[ -]?[0-9]{3}[-. ][0-9]{4}|(?:1[-. ])?[2-9][0-9]{2}([ .-])[2-9][0-9]{2}\1[0-9]{4}"
    r"|0[1-9]([ .-])[0-9]{2}(?:\2[0-9]{2}){3}"
    r"|[679][0-9]{2}([ .-])[0-9]{2}\3[0-9]{2}\3[0-9]{2}"
    r"|\(?0[0-9]{1,5}\)?[ /.-]{1,3}[0-9][0-9 /.-]{4,12}[0-9]|06-?[0-9]{8}"
)


def match_phone(window: Window) -> Answer:
    """Match a phone number, with its extension."""
    text, start = window.text, window.start
    shape = _SHAPE.match(text, start, window.group)
    if shape is None or _LONGER_BEFORE.search(text, max(0, start - 2), start):
        return None
    if in_account_number(text, start):
        return None
    end = shape.end() - (shape[0].count("(") < shape[0].count(")"))
    if text.count("(", start, end) != text.count(")", start, end):
        return None
    if _LONGER_AFTER.match(text, end, window.end) or _UNITS.match(text, end, window.end):
        return None
    number = _EXTENSION_AT.sub("", text[start:end])
    if (
        not 7 <= len(_NO_DIGITS.sub("", number)) <= 15
        or _DATE.match(number)
        or _DECIMAL.fullmatch(number)
        or _YEARS.fullmatch(number)
        or _ADDRESS.match(number)
    ):
        return None
    if number[0] == "(" and number[-1] == ")":
        return None
    named = in_column(window, _WORDS, others=_NUMBERS)
    if (
        not named
        and in_row(text, start, end, window.end)
        and not (number[0] == "+" or _CERTAIN.fullmatch(number))
    ):
        return None
    told = _is_international(number) or (
        not number.lstrip("(").startswith("+")
        and ((named and _is_likely(number)) or _is_national(window, end, number))
    )
    if told is WAIT:
        return WAIT
    return Match("phone", start, end) if told else None


def _is_international(number: str) -> bool:
    plain = number.replace("(0)", "").lstrip("( ")
    if not plain.startswith(("+", "00")):
        return False
    return _is_phone("+" + _NO_DIGITS.sub("", plain.removeprefix("00")), None)


def _is_national(window: Window, end: int, number: str) -> bool | Wait:
    near = before(window.text, window.start, _WORDS, things=f"{THINGS}|{_THINGS}", others=_OTHERS)
    if near is Near.NO:
        return False
    if _CERTAIN.fullmatch(number) and len(_NO_DIGITS.sub("", number)) >= 9 and _is_valid(number):
        return True
    told = near is Near.YES or after(window, end, f"{_WORDS}|office|home|work")
    if not isinstance(told, bool) or not told:
        return told
    return _is_likely(number)


def _is_likely(number: str) -> bool:
    grouped = _GROUPED.fullmatch(number) is not None and _THOUSANDS.fullmatch(number) is None
    return grouped or _is_valid(number)


def _is_valid(number: str) -> bool:
    return any(_is_phone(number, region) for region in REGIONS)


@lru_cache(maxsize=1024)
def _is_phone(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(parsed) or (
        region is None and phonenumbers.is_possible_number(parsed) and len(number) > 9
    )
