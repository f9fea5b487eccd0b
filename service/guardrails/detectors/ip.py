"""Addresses of IP: not versions, sections, netmasks and loopback."""

from __future__ import annotations

import ipaddress
import re

from service.guardrails.detectors.context import Near, before
from service.guardrails.match import Match, Window

_V4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9]|-[A-Za-z0-9])")
_V6 = re.compile(
    r"(?=[^\s]{0,40}:)[0-9A-Fa-f]{0,4}(?::{1,2}[0-9A-Fa-f]{1,4}){1,7}(?:::)?(?:(?<=:)[0-9.]{7,15})?(?![\w:])"
)
_ADDRESSED = re.compile(r"(?::[0-9]{2,5}|/(?:[89]|[12][0-9]|3[0-2]))(?![0-9])")  # port, network
_WORDS = (
    r"ipv?[46]?|ip-?adress\w*|ip-?adres|ip address|host|hosts|server|servers|address|adresse?|dirección|"
    r"indirizzo|client|"
    r"ping|dns|gateway|proxy|login|logged|ssh|curl|https?|subnet|network|netzwerk|réseau|red|rete|"
    r"netwerk|router|"
    r"firewall|remote|source|src|dst|visitor|request|requests|connection|connected|nameserver|resolver|"
    r"blocked|banned|whitelist|allowlist|vpn|peer|node|session|"
    r"connect[ée]\w*|conect\w*|colleg\w*|logde|ingelogd|angemeldet|anmeldung\w*|eingeloggt|entró|entrato|"
    r"attack\w*|attempts?|traffic|packets?|scan(?:s|ned|ner)?|bots?|crawler|machine|device|printer|camera|"
    r"angriff\w*|angegriffen|zugriff\w*|verkehr|pakete?|drucker|kamera|rechner|gerät|"
    r"attaques?|tentatives?|trafic|paquets?|imprimante|machines?|connexion|serveur|pare-feu|"
    r"ataques?|intentos?|tráfico|impresora|máquina|conexión|servidor|cortafuegos|"
    r"attacc\w*|tentativ[oi]|traffico|stampante|macchina|connessione|richieste|"
    r"aanval\w*|poging\w*|verkeer|printer|verbinding|apparaat"
)
_VERSIONS = (
    r"v|ver|vers|version\w*|versie|versión|versione|release\w*|firmware|build|driver|patch|update|"
    r"section|§+|chapter|"
    r"clause|kapitel|abschnitt|chapitre|capítulo|sección|capitolo|sezione|hoofdstuk|paragraaf|paragraph|"
    r"article|artikel|"
    r"oid|serial|part|chrome|firefox|safari|edge|kernel|library|package|upgrade[d]?|downgrade[d]?|"
    r"mise à jour|app|tag|sdk|libs?|image|module|plugin|add-?on|gem|dll|assembly|windows|macos|ios|android"
)


def match_ip(window: Window) -> Match | None:
    """Match an address of IP version 4 or 6."""
    text, start = window.text, window.start
    v4 = _V4.match(text, start, window.group)
    if v4 is not None:
        return Match("ip", start, v4.end()) if _is_v4(window, v4[0]) else None
    v6 = _V6.match(text, start, window.group)
    return Match("ip", start, v6.end()) if v6 is not None and _is_v6(text, start, v6[0]) else None


def _is_v4(window: Window, found: str) -> bool:
    text, start = window.text, window.start
    try:
        address = ipaddress.IPv4Address(found)
    except ValueError:
        return False
    if text[start - 1 : start] in (".", "-", "_") or address.is_loopback or found.startswith(("0.", "255.")):
        return False
    near = before(text, start, _WORDS, things=_VERSIONS)
    if near is not Near.NONE:
        return near is Near.YES
    return (
        any(int(part) > 99 for part in found.split("."))
        or _ADDRESSED.match(text, start + len(found), window.end) is not None
    )


def _is_v6(text: str, start: int, found: str) -> bool:
    try:
        address = ipaddress.IPv6Address(found)
    except ValueError:
        return False
    if text[start - 1 : start] in (".", "-", "_", ":") or address.is_loopback or address.is_unspecified:
        return False
    hexes = found.replace(":", "")
    if re.fullmatch("[0-9]{0,2}(?::{1,2}[0-9]{1,2})+", found):  # as times are
        return before(text, start, _WORDS, things=_VERSIONS) is Near.YES
    return any(letter in "0123456789" for letter in hexes) and (len(hexes) >= 5 or found.count(":") > 2)
