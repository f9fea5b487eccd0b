"""Links that an answer may keep: to listed hosts, and written so plainly that no reader takes them for others.

Strict: no user, no encoding and no escape before the path, which holds no other URL.
"""

from __future__ import annotations

import re

from service.guardrails.hosts import Hosts
from service.guardrails.link_signs import Inside, holds_url
from service.guardrails.plain_text import view_of

_SCHEME = r"(?<![A-Za-z0-9_@.%&;:/\\+-])(?:(?:https?|ftp):)?//"
_BARE = r"(?<![\w@.%&;:/\\+-])"
_MAIL = r"(?<![\w@.%&;:/\\+-])mailto:[A-Za-z0-9_.+-]+@"
_URL = re.compile(
    rf"(?:(?P<mail>{_MAIL})|{_SCHEME}|{_BARE})(?P<host>[\w-]+(?:\.[\w-]+)*)(?P<port>:[0-9]{{1,5}})?"
    r"(?P<end>[/?#][^\s<>\"'()\[\]{}|\\`*^\x00-\x1f\x7f-\x9f\xad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*|(?=[)\]>\"'*]|[,.;:!?]*$|[,;!]))"
)
_LONGER = re.compile(r"@|\.\w")
_ATTRIBUTE = re.compile(r"<|[=\"']$")
_FILLER = "\x01"  # not part of a host, a scheme or Markdown


def without_listed(word: str, hosts: Hosts, inside: Inside, *, whole: bool) -> str:
    """Replace the links in a word that may stay by filler of the same length.

    `whole`: the word ends here. `inside`: see `find_links`.
    """

    def filler(match: re.Match[str]) -> str:
        return _FILLER * len(match[0]) if _may_stay(match, hosts, inside, whole) else match[0]

    return _URL.sub(filler, word)


def _may_stay(match: re.Match[str], hosts: Hosts, inside: Inside, whole: bool) -> bool:
    rest = match.string[match.end() :]
    if match["host"] not in hosts or not (rest or whole):
        return False
    is_attribute = inside or _ATTRIBUTE.search(match.string, 0, match.start()) is not None
    if is_attribute and not match["end"] and not rest.strip(".,;:!?"):
        return False  # `href="https://good.example x@evil.example"`: browsers read on for the host
    if not match["end"]:
        # Some programs read on to the end of the word, for a longer host, or a user before an `@`.
        return _LONGER.search(view_of(rest).text) is None
    if match["mail"]:
        return False  # more than an address
    return not holds_url(view_of(match["end"]))
