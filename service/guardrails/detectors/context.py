"""Words around a place that tell what a number or a date is, in English, German, French, Spanish, Italian, Dutch."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from service.guardrails.match import WAIT, Wait, Window

BEFORE, AFTER = 70, 48  # characters that are looked at
# Things that have numbers: a number right after such a word is no personal one.
THINGS = (
    r"order|invoices?|tracking|parcel|shipment|consignment|waybill|reference|ref|part|parts|serial|s/n|"
    r"version|sku|asin|"
    r"ticket|tickets|case|article|item|model|build|commit|isbn|issn|ean|upc|gtin|imei|timestamp|batch|"
    r"lot|receipt|"
    r"transaction|checksum|hash|uuid|record|row|rows|pid|port|population|inhabitants|coordinates?|"
    r"latitude|longitude|"
    r"patent|doi|arxiv|pmid|barcode|booking|reservation|quote|catalog(?:ue)?|product|vin|revision|"
    r"chapter|section|iccid|imsi|"
    r"bestell\w*|auftrag\w*|rechnung\w*|sendung\w*|artikel\w*|referenz\w*|aktenzeichen|az|serien\w*|"
    r"teile\w*|paket\w*|"
    r"vorgang\w*|buchung\w*|kunden\w*|lieferschein\w*|chargen\w*|einwohner|modell\w*|geräte\w*|"
    r"produkt\w*|fahrgestell\w*|"
    r"commande|facture|colis|réf|référence|série|article|suivi|dossier|lot|pièce|billet|habitants|"
    r"produit|modèle|"
    r"pedido|factura|envío|referencia|serie|artículo|seguimiento|expediente|lote|pieza|reserva|producto|"
    r"modelo|"
    r"ordine|fattura|spedizione|riferimento|articolo|tracciamento|pratica|lotto|pezzo|prenotazione|"
    r"prodotto|modello|"
    r"bestel\w*|factuur\w*|zending\w*|referentie\w*|serienummer|dossiernummer|pakket\w*|onderdeel\w*|"
    r"boeking\w*|"
    r"pallet|level|n[°º] client|num[ée]ro client|nr klienta|"
    r"zaaknummer|klantnummer|productcode|zamówieni\w*|faktura|przesyłka"
)
_NUMBER = (
    r"\s*(?:(?:numbers?|no|nos|nr|nrs|num|ids?|codes?|keys?|nummern?|numéros?|números?|numer[oi]|n°|nº|"
    r"is|was|are|ist|war|"
    r"lautet|est|es|era|è|of|de|to|from|and|und|et|en|bis|y|e)(?![^\W_])|[#:=(\[\"'.,;/&-]|[0-9]++)"
)
_LINKS = (
    r"\s*[\"'»)\]]{0,2}\s*[,(\[–-]?\s*(?:(?:is|was|are|ist|war|lautet|est|es|era|è|as|als|come|como|"
    r"comme|being|isn't|"
    r"the|my|his|her|your|our|their|a|an|die|der|das|mein\w*|sein\w*|ihr\w*|dein\w*|unser\w*|eine?|mon|"
    r"ma|son|sa|votre|"
    r"notre|le|la|un|une|mi|su|tu|el|una|il|lo|mio|mia|suo|sua|mijn|zijn|haar|het|de|uw|jouw|een|valid|"
    r"own|full|new|current|nuev[oa]|nuov[oa]|nouveau|nouvelle|neue[rsn]?|nieuwe?|"
    r"which|that|c'est|número|numero|numéro|number|nummer|du|del|di|van|of|for|so)\s+|l['’])*"
)
_ACCOUNT_BEFORE = re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){1,7}[ -]?\Z")
_FIELD_BEFORE, _FIELD_AFTER = re.compile(r"[0-9],\Z"), re.compile(",[0-9]")
_LETTER = re.compile(r"[^\W0-9_]")
_STOP = re.compile(r"[.!?;]\s|\n")


class Near(Enum):
    """Nearest words before a place."""

    YES = "yes"
    NO = "no"
    NONE = "none"


@lru_cache(maxsize=64)
def _either(words: str, others: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:(?P<no>{others})|(?P<yes>{words}))(?![^\W_])", re.IGNORECASE)


@lru_cache(maxsize=64)
def _named(things: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{things})s?(?:{_NUMBER})*+\s*\Z", re.IGNORECASE)


@lru_cache(maxsize=64)
def _following(words: str) -> re.Pattern[str]:
    return re.compile(
        rf"{_LINKS}(?:{words})(?![^\W_])(?!\s?(?:[:=#]|is|ist|est|es|è)\s?[0-9+])", re.IGNORECASE
    )


def in_account_number(text: str, start: int) -> bool:
    """Return whether a place is inside what looks like an IBAN, however wrong its check digits are."""
    return _ACCOUNT_BEFORE.search(text, max(0, start - 40), start) is not None


def has_words(text: str, start: int) -> bool:
    """Return whether there are letters so near before a place that `before` reads them."""
    return _LETTER.search(text, max(0, start - BEFORE), start) is not None


def in_row(text: str, start: int, end: int, last: int) -> bool:
    """Return whether a comma without a space parts a number from digits: fields of a row, or a longer number."""
    return _FIELD_BEFORE.search(text, max(0, start - 2), start) is not None or (
        _FIELD_AFTER.match(text, end, last) is not None
    )


def before(text: str, start: int, words: str, *, things: str = THINGS, others: str = "(?!)") -> Near:
    """Return whether one of the `words` stands before a place.

    It does not count if one of the `things` is named right before the place, or if one of the `others` is nearer.
    """
    if not has_words(text, start):  # a cheap look first
        return Near.NONE
    least = max(0, start - BEFORE)
    if _named(things).search(text, least, start) is not None:
        return Near.NO
    nearest = Near.NONE
    for found in _either(words, others).finditer(text, least, start):
        nearest = Near.YES if found["yes"] is not None else Near.NO
    return nearest


def in_column(window: Window, words: str, *, others: str = "(?!)") -> bool:
    """Return whether the heading of the table's column has one of the `words`, and none of the `others` after it."""
    column = window.column
    return bool(column) and before(column, len(column), words, things="(?!)", others=others) is Near.YES


def after(window: Window, end: int, words: str) -> bool | Wait:
    """Return whether one of the `words` follows a match, as in `… is my number`."""
    last = min(window.end, end + AFTER)
    stop = _STOP.search(window.text, end, last)
    if stop is not None:
        last = stop.start()
    elif last < end + AFTER and not window.final:
        return WAIT
    if _LETTER.search(window.text, end, last) is None:
        return False
    return _following(words).match(window.text, end, last) is not None
