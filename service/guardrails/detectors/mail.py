"""Mail addresses."""

from __future__ import annotations

import re

from service.guardrails.match import WAIT, Answer, Match, Window

_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_AT = r"(?:@|[(\[{](?:at|AT|ät|arroba|chez)[)\]}])"
_DOT = r"(?:\.|[(\[{](?:dot|DOT|punkt|point|punto|punt)[)\]}])"
# The same with spaces, as in `jo [at] example [dot] com`.
_SPACED_AT = r" ?[(\[{](?:at|AT|ät|arroba|chez)[)\]}] ?"
_SPACED_DOT = rf"(?:\.| ?{_DOT[3:-1].split('|', 1)[1]} ?)"
_LOCAL = r"[\w+][\w.%+'-]{0,63}"
_SPACED = re.compile(rf"{_LOCAL}{_SPACED_AT}")
_SPACED_OPEN = re.compile(rf"{_LOCAL}(?: (?:[(\[{{][A-Za-zä]{{0,7}})?)?\Z")
_SPACED_ADDRESS = re.compile(
    rf"{_LOCAL}{_SPACED_AT}(?:{_LABEL}{_SPACED_DOT}){{1,8}}(?P<end>[a-z]{{2,63}})(?![\w@])"
)
_HAS_AT = re.compile(r"[@(\[{]")  # a cheap look first
_ADDRESS = re.compile(
    rf"[\w+][\w.%+'-]{{0,63}}{_AT}({_LABEL}(?:{_DOT}{_LABEL}){{0,7}}{_DOT}"
    r"((?:xn--[A-Za-z0-9-]{2,59}|[^\W0-9_]{2,63})))(?![\w@])"
)
# Ends of file names and code, which are no domains: `icon@2x.png`.
_FILES_WORDS = (
    "png jpg jpeg gif svg webp ico pdf css scss js mjs jsx ts tsx json yaml yml toml xml html htm php "
    "py rb txt md csv "
    "service timer socket mount rst"
)
_FILES = frozenset(_FILES_WORDS.split())


def match_mail(window: Window) -> Answer:
    """Match a mail address."""
    text, start = window.text, window.start
    if _SPACED.match(text, start, window.end):
        spaced = _SPACED_ADDRESS.match(text, start, window.end) if window.final else None
        if not window.final or spaced is not None:
            return WAIT if spaced is None else Match("email", start, spaced.end())
    elif not window.final and _SPACED_OPEN.match(text, start, window.end):
        return WAIT
    if _HAS_AT.search(text, start, window.group) is None:
        return None
    found = _ADDRESS.match(text, start, window.group)
    if found is None or ".." in found[0]:
        return None
    local = re.split("[@(\\[{]", found[0], maxsplit=1)[0]
    if local.endswith(".") or found[2].lower() in _FILES:
        return None
    if local == "git" and text[found.end() : found.end() + 1] == ":":  # an address of a repository
        return None
    return Match("email", start, found.end())
