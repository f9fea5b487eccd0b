"""Headings of a table's columns: what the rows below are told by, however far above they stand."""

from __future__ import annotations

import re

_LONGEST = 1_000  # characters of a line
_LONGEST_NAME = 30
_SIGNS = (("\t", 1), ("|", 1), (";", 1), (",", 2))  # between columns, and how many a row has at least
_NO_HEADING = re.compile("[0-9]{3}|[@{}=<>]")
_TELLING = re.compile(
    r"birth|dob|b-?day|geb|naiss|nac|nasc|nat[oa]|né|urodz|phone|tel|mob|cell|handy|portable|m[óo]vil|fax|contact|"
    r"ssn|social|bsn|burger|pesel|nhs|steuer|tax|fiscal|dni|nie|nif|sécu|nir",
    re.IGNORECASE,
)
_QUOTED = re.compile('"[^"]*"?')
_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")


class Headings:
    """Names of the columns of the table that a text is in. The same in any pieces of the text."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sign = ""
        self._line = ""

    def feed(self, text: str) -> None:
        """Take the next piece of the text in plain form."""
        *ended, rest = text.split("\n")
        for line in ended:
            self._end(self._line + line)
            self._line = ""
        self._line = (self._line + rest[: _LONGEST + 1])[: _LONGEST + 1]

    def here(self) -> str:
        """Return the name of the column in which the text now is; empty outside of tables."""
        if not self._names or len(self._line) > _LONGEST:
            return ""
        line = _QUOTED.sub("", self._line) if '"' in self._line else self._line
        column = line.count(self._sign)
        return self._names[column] if column < len(self._names) else ""

    def _end(self, line: str) -> None:
        if self._names and self._sign in line and len(line) <= _LONGEST:
            return  # one more row
        self._names = ()
        if len(line) > _LONGEST:
            return
        for sign, least in _SIGNS:
            if line.count(sign) >= least:
                names = tuple(_CAPITAL.sub(" ", one.strip(" \"'*\r")) for one in line.split(sign))
                short = max(map(len, names)) <= _LONGEST_NAME  # a cheap look first
                if short and _TELLING.search(line) and not _NO_HEADING.search(line):
                    self._names, self._sign = names, sign
                return
