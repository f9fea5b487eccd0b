"""Text as it arrives, in plain form: usual digits, dashes and spaces, without invisible characters and entities."""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left

INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef"
)
_SPECIAL = re.compile(
    rf"&(?:#[0-9]{{1,7}}|#[xX][0-9a-fA-F]{{1,6}}|[A-Za-z]{{2,8}});|%(?:40|2[bBdDeE])|[{INVISIBLE}]"
)
_MAY_BE_SPECIAL = re.compile(rf"[&%{INVISIBLE}]")
_BEGUN = re.compile(r"(?:&#?[A-Za-z0-9]{0,8}|%[24]?)\Z")  # an entity or an escape that may still be arriving
_MOST_KNOWN = 4_096


class _Plain(dict[int, int]):
    """Table for `str.translate`, filled as characters are met: each becomes one character."""

    def __missing__(self, code: int) -> int:
        plain = ord(_plain_character(chr(code)))
        if len(self) < _MOST_KNOWN:
            self[code] = plain
        return plain


def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if category == "Pd" or character == "\u2212":
        return "-"
    folded = unicodedata.normalize("NFKC", character)
    return folded if category != "No" and len(folded) == 1 and folded.isascii() else character


_PLAIN = _Plain()
_ODD = re.compile("[^\x00-\x7f\u00c0-\u024f]+")  # Latin letters stay as they are


def _plain(text: str) -> str:
    return text if text.isascii() else _ODD.sub(lambda match: match[0].translate(_PLAIN), text)


class PlainStream:
    """Text received so far. `raw` as it came, `text` in plain form, and for each place of `text` one of `raw`."""

    def __init__(self) -> None:
        self.raw = ""
        self.text = ""
        self._at: list[int] | None = None  # None: both have the same places
        self._arriving = ""  # the end of the raw text, not decoded yet

    def feed(self, piece: str) -> None:
        """Take the next piece."""
        piece = self._arriving + piece
        begun = _BEGUN.search(piece, max(0, len(piece) - 10)) if "&" in piece or "%" in piece else None
        cut = begun.start() if begun is not None else len(piece)
        self._arriving = piece[cut:]
        self._decode(piece[:cut])

    def finish(self) -> None:
        """Take the end of the text."""
        rest, self._arriving = self._arriving, ""
        self._decode(rest)

    def _decode(self, piece: str) -> None:
        base = len(self.raw)
        self.raw += piece
        if piece.isascii() and "&" not in piece and "%" not in piece:
            self._add(piece, base)
            return
        done = 0
        for match in _SPECIAL.finditer(piece) if _MAY_BE_SPECIAL.search(piece) else ():
            meant = _meaning(match[0])
            if meant is None:
                continue
            self._add(_plain(piece[done : match.start()]), base + done)
            if self._at is None:
                self._at = list(range(len(self.text)))
            if meant:
                self.text += _plain(meant)
                self._at.append(base + match.start())
            done = match.end()
        self._add(_plain(piece[done:]), base + done)

    def _add(self, plain: str, at: int) -> None:
        self.text += plain
        if self._at is not None:
            self._at.extend(range(at, at + len(plain)))

    def raw_place(self, place: int) -> int:
        """Return where the character at a place of `text` begins in `raw`."""
        if self._at is None:
            return place
        return self._at[place] if place < len(self._at) else len(self.raw)

    def raw_end(self, place: int) -> int:
        """Return where the character before a place of `text` ends in `raw`."""
        if self._at is None or place == 0:
            return place
        at = self._at[place - 1]
        entity = _SPECIAL.match(self.raw, at)
        return entity.end() if entity is not None and _meaning(entity[0]) is not None else at + 1

    def place_within(self, raw: int) -> int:
        """Return the first place of `text` that begins at `raw` or later."""
        return min(max(raw, 0), len(self.text)) if self._at is None else bisect_left(self._at, raw)

    def drop(self, place: int) -> int:
        """Forget the text before a place; return how many characters of `raw` that were."""
        raw = self.raw_place(place)
        self.raw, self.text = self.raw[raw:], self.text[place:]
        if self._at is not None:
            self._at = [at - raw for at in self._at[place:]]
            if len(self._at) == len(self.raw) and self._at == list(range(len(self.raw))):
                self._at = None
        return raw


def _meaning(special: str) -> str | None:
    """Return the character that an entity or escape stands for; empty: invisible; None: neither."""
    if len(special) == 1:
        return ""
    meant = chr(int(special[1:], 16)) if special[0] == "%" else html.unescape(special)
    if len(meant) != 1:
        return None
    return "" if re.match(f"[{INVISIBLE}]", meant) else meant
