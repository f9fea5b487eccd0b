"""Dates of birth: dates near words that tell of a birth."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from service.guardrails.detectors.context import Near, after, before, in_column
from service.guardrails.detectors.months import MONTHS
from service.guardrails.match import WAIT, Answer, Match, Window

_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_NUMBERED = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:(?:19|20)[0-9]{2}|['’]?[0-9]{2})"
_MONTH = rf"(?:{MONTHS})\.?"
_ORDINAL = r"(?:\.|st|nd|rd|th|er|º|ª|°|e|\.º)"
_OF = r"(?:of |de |del |di )?"
_FORMS = (
    rf"{_DAY}(?P<a> ?[-./] ?){_NUMBERED}(?P=a)(?P<y1>{_YEAR})",
    rf"{_NUMBERED}(?P<b> ?[-./] ?){_DAY}(?P=b)(?P<y2>{_YEAR})",
    rf"(?P<y3>(?:19|20)[0-9]{{2}})(?P<c> ?[-./] ?){_NUMBERED}(?P=c){_DAY}",
    rf"{_DAY}{_ORDINAL}?(?:[ -]|(?<=\.)){_OF}{_MONTH}[ ,-]{{1,2}}{_OF}(?P<y4>{_YEAR})",
    rf"{_MONTH} {_DAY}(?:st|nd|rd|th)?,? (?P<y5>{_YEAR})",
    rf"(?P<y6>(?:19|20)[0-9]{{2}}) {_MONTH} {_DAY}",
    rf"{_DAY} {_NUMBERED} (?P<y7>(?:19|20)[0-9]{{2}})",
    r"(?P<y8>(?:19|20)[0-9]{2})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])",
    r"(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])(?P<y9>(?:19|20)[0-9]{2})",
)
_ENDS = r"(?![^\W_]|[./-][0-9])"
_SHAPES = tuple(re.compile(rf"{form}{_ENDS}", re.IGNORECASE) for form in _FORMS)
_ANY = re.compile(rf"(?:{'|'.join(_FORMS)}){_ENDS}", re.IGNORECASE)  # a cheap look first
_WORDS = (
    r"born|b\.|(?:dateof)?birth|birthdays?|birthdates?|birth ?date|dob|d\.o\.b\.?|b-?day|date of birth|"
    r"geboren\w*|geb|geburts(?:datum|tag|daten)\w*|geburt|gebürtig|zur welt|"
    r"née?s?|né\(e\)|(?:date(?:de)?)?naissance|anniversaire|ddn|"
    r"nacid[oa]s?|nació|(?:fecha(?:de)?)?nacimiento|nac|cumpleaños|nací|"
    r"nat[oaie]|(?:data(?:di)?)?nascita|nacqu\w*|compleanno|nascit\w*|"
    r"geboortedatum|geboren|geboorte\w*|geb|verjaardag|jarig|geb\.? ?datum|urodz\w*|ur"
)
# Dates of something else: the nearest word decides.
_OTHERS = (
    r"birth(?:day)? (?:party|cake|card|gift|certificate|rate)\w*|geburtstags\w+|verjaardags\w+|"
    r"(?:fête|soirée|gâteau|cadeau|carte|goûter) d['’]anniversaire|(?:fiesta|tarta|regalo|tarjeta) de cumpleaños|"
    r"(?:festa|torta|regalo|biglietto) di compleanno|anniversaire (?:de|du) (?:mariage|l['’]entreprise|la)|"
    r"missing|unknown|fehlt|auftrags?\w*|manqu\w*|inconnue?|falta|desconocid\w*|manca|ontbreekt|onbekend|"
    r"(?<!geboren )wurden?|(?<!geboren )werd|"
    r"hired|joined|closed|ended|opened|geschlossen|eröffnet|ferm[ée]\w*|cerrad[oa]|chius[oa]|gesloten|signed|since|died|death|deceased|expires?|expir\w*|valid|until|due|delivered|"
    r"delivery|issued|released?|"
    r"founded|launch\w*|appointment|meeting|invoice\w*|order\w*|ordered|paid|party|celebrat\w*|created|"
    r"updated|moved|married|"
    r"wedding|started|arriv\w*|depart\w*|visit\w*|admitted|contract|event|festival|concert|conference|"
    r"cake|gift|card|voucher|"
    r"gestorben|verstorben|eingestellt|seit|gültig|ausgestellt|termin|rechnung\w*|bestell\w*|lieferung|"
    r"gegründet|feier\w*|"
    r"geburtstagsfeier|umgezogen|geheiratet|vertrag\w*|gestartet|erschienen|veröffentlicht|\w*feier|"
    r"décédée?|mort|embauchée?|depuis|valable|expire|rendez-vous|facture|commande|livr\w*|fondée?|fête|"
    r"mariée?|signé|"
    r"fallecid[oa]|murió|contratad[oa]|desde|válid[oa]|caduca|cita|factura|pedido|entrega|fundad[oa]|"
    r"fiesta|casad[oa]|"
    r"mort[oa]|deceduto|assunt[oa]|dal|valid[oa]|scade|scadenza|appuntamento|fattura|ordine|consegna|"
    r"fondat[oa]|festa|sposat[oa]|"
    r"overleden|aangenomen|sinds|geldig|verloopt|afspraak|factuur|bestelling|levering|opgericht|feest|"
    r"verjaardagsfeest|getrouwd"
)
_PLACE = r"(?:in|im|at|à|a|en|te) [\w'’-]{2,25} "  # `am 12.03.1985 in Kassel geboren`
_SIGN = re.compile(r"(?:^|[\s(])\*\s?\Z")  # `* 12.03.1985`
_LONGER_BEFORE = re.compile(r"[0-9][./-]\Z")
_EARLIEST = 1900


def match_birth_date(window: Window) -> Answer:
    """Match a date that words tell to be one of a birth."""
    text, start = window.text, window.start
    if _ANY.match(text, start, window.group) is None or _LONGER_BEFORE.search(text, max(0, start - 2), start):
        return None
    end = _end_of_date(window)
    if end is None:
        return None
    near = before(text, start, _WORDS, things="(?!)", others=_OTHERS)
    if (
        near is Near.YES
        or in_column(window, _WORDS, others=_OTHERS)
        or _SIGN.search(text, max(0, start - 3), start)
    ):
        return Match("birth_date", start, end)
    told = after(window, end, rf"(?:{_PLACE})?(?:{_WORDS})")
    if told is WAIT:
        return WAIT
    return Match("birth_date", start, end) if told else None


def _end_of_date(window: Window) -> int | None:
    """Return where a date at the start of a window ends, of a year in which people are born."""
    latest, ends = datetime.now(UTC).year, list[int]()
    for shape in _SHAPES:
        found = shape.match(window.text, window.start, window.group)
        if found is not None:
            year = next(text for name, text in found.groupdict().items() if name[0] == "y" and text)
            if len(year) != 4 or _EARLIEST <= int(year) <= latest:
                ends.append(found.end())
    return max(ends, default=None)
