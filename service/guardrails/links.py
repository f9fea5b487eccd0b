"""Links taken out of text as it arrives, in any chunking: those to hosts that are not listed.

Text is read word by word, a word being what white space ends. A word is held back until its end, or until it is longer
than `LONGEST`; the beginning of one in a script without spaces goes on as soon as it cannot belong to a link.
The time is linear in the text.
"""

from __future__ import annotations

import re

from service.guardrails.hosts import Hosts
from service.guardrails.link_signs import Inside, Links, find_links
from service.guardrails.listed_links import without_listed
from service.guardrails.plain_text import view_of

MARK = "[link removed]"
LONGEST = 2_048  # characters of a word that are held back
_TAIL = 256  # characters of a longer word without a link that stay: a host's length

# Without control characters that Python, but no browser takes for white space.
_SPACES = "\\t\\n\\f\\r \\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
_PIECES = re.compile(f"[{_SPACES}]+|[^{_SPACES}]+")
_SPACE = re.compile(f"[{_SPACES}]")
_MAY_BE_LINK = re.compile(r"[:/.\\&%@<>()\[\]]|[^\x00-\x7f]")
# Up to the last letter of a script without spaces, with nothing before it that a URL needs.
_SETTLED = re.compile(
    r"[^:/.@<>()\[\]&%\\=\uff0e\uff0f\uff20\uff3c]*[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
)


class LinkFilter:
    """Filter of one text. `hosts` may be linked to; None: any. `removed`: links taken out so far."""

    def __init__(self, hosts: Hosts | None) -> None:
        self._hosts = hosts
        self._inside: Inside = ""
        self._lines = 0  # ended since the last word
        self._word = ""
        self._sent = 0  # characters of the word that went on already
        self._cut = False  # the word's beginning went on: it was longer than LONGEST
        self._dropping = False  # until the word ends: it was longer than LONGEST, and is a link
        self.removed = 0

    def feed(self, text: str) -> str:
        """Take the next piece; return what may go on."""
        if self._hosts is None:
            return text
        out = []
        for match in _PIECES.finditer(text):
            piece = match[0]
            if _SPACE.match(piece):
                out += [self.close(), piece]
                self._lines += piece.count("\n")
                if self._lines > 1:  # a blank line ends what is inside a paragraph
                    self._inside = ""
            else:
                self._lines = 0
                out += self._more(piece)
        return "".join(out)

    def close(self) -> str:
        """End the word, as at the end of the text; return the rest that may go on."""
        out = "" if self._dropping or not self._word else self._cleaned()
        self._word, self._sent, self._cut, self._dropping = "", 0, False, False
        return out

    def _more(self, piece: str) -> list[str]:
        out, at = [], 0
        while at < len(piece) and not self._dropping:
            room = LONGEST - len(self._word)
            self._word += piece[at : at + room]
            at += room
            if len(self._word) == LONGEST:
                out.append(self._overflow())
        if not self._dropping:
            settled = self._settled()
            if settled > self._sent:
                out.append(self._word[self._sent : settled])
                self._sent = settled
        return out

    def _settled(self) -> int:
        """Return the length of the word's beginning that stays, whatever comes."""
        found = _SETTLED.match(self._word)
        return max(self._sent, found.end() if found is not None else 0)

    def _overflow(self) -> str:
        """Take out a word that is too long and has a link in it; else let all but its end go on."""
        settled = self._settled()
        found = self._links(self._word, whole=False)
        if found.spans:
            self._dropping, self._inside, self.removed = True, found.inside, self.removed + 1
            return self._word[self._sent : max(found.spans[0][0], settled)] + MARK
        at = max(self._sent, LONGEST - _TAIL)
        out, self._word = self._word[self._sent : at], self._word[LONGEST - _TAIL :]
        self._sent, self._cut = at - LONGEST + _TAIL, True
        return out

    def _cleaned(self) -> str:
        """Return the rest of the word without links."""
        word, at = self._word, self._settled()
        if _MAY_BE_LINK.search(word) is None and self._inside != "definition":
            return word[self._sent :]
        out = word[self._sent : at]
        found = self._links(word, whole=True)
        for begin, end in found.spans:
            if end > at:
                out += word[at : max(begin, at)]
                out += (" " if out.endswith(("]", "/", ":", "\\")) else "") + MARK
                self.removed += 1
                at = end
                out += " " if word[at : at + 1] in ("(", "[", ":") else ""
        self._inside = found.inside
        return out + word[at:]

    def _links(self, word: str, *, whole: bool) -> Links:
        """Find the links in a word that must go."""
        if self._hosts is not None and not self._cut:
            word = without_listed(word, self._hosts, self._inside, whole=whole)
        found = find_links(word, view_of(word), self._inside)
        if "\\" in word or "\uff3c" in word:
            more = find_links(word, view_of(word, slashes=True), self._inside)
            found = Links(sorted({*found.spans, *more.spans}), found.inside or more.inside)
        return found


def without_links(text: str, hosts: Hosts) -> str:
    """Take the links to unlisted hosts out of a whole text."""
    links = LinkFilter(hosts)
    return links.feed(text) + links.close()
