"""Links that an answer may keep: to listed hosts, and written so plainly that no reader takes them for others.

Strict: no user, no encoding and no escape before the path, which holds no other URL.
"""

from __future__ import annotations

import re

from service.guardrails.hosts import Hosts
from service.guardrails.link_signs import holds_url
from service.guardrails.plain_text import view_of

_SCHEME = r"(?<![A-Za-z0-9_@.%&;:/\\+-])(?:(?:https?|ftp):)?//"
_BARE = r"(?<![\w@.%&;:/\\+-])"
_MAIL = r"(?<![\w@.%&;:/\\+-])mailto:[A-Za-z0-9_.+-]+@"
_URL = re.compile(
    rf"(?:(?P<mail>{_MAIL})|{_SCHEME}|{_BARE})(?P<host>[\w-]+(?:\.[\w-]+)*)(?P<port>:[0-9]{{1,5}})?"
    r"(?P<end>[/?#][^\s<>\"'()\[\]{}|\\`*^]*|(?=[)\]>\"'*]|[,.;:!?]*$|[,;!]))"
)
_LONGER = re.compile(r"@|\.\w")
_FILLER = "\x01"  # not part of a host, a scheme or Markdown


def without_listed(word: str, hosts: Hosts, *, whole: bool) -> str:
    """Replace the links in a word that may stay by filler of the same length. `whole`: the word ends here."""

    def filler(match: re.Match[str]) -> str:
        return _FILLER * len(match[0]) if _may_stay(match, hosts, whole) else match[0]

    return _URL.sub(filler, word)


def _may_stay(match: re.Match[str], hosts: Hosts, whole: bool) -> bool:
    if match["host"] not in hosts or (match.end() == len(match.string) and not whole):
        return False
    if not match["end"]:
        # Some programs read on to the end of the word, for a longer host, or a user before an `@`.
        rest = view_of(match.string[match.end() :]).text
        return _LONGER.search(rest) is None
    if match["mail"]:
        return False  # more than an address
    return not holds_url(view_of(match["end"]))
