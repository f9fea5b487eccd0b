"""Hosts that answers may link to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Starts at the beginning of a run only, so the time is linear in the text.
_HOST = re.compile(r"(?<![\w-])[^\W_][\w-]*(?:\.[\w-]+)+")
PATTERN = r"^(\*\.)?[^\W_][\w-]*(\.[\w-]+)*$"  # of a host, or of all subdomains of one


@dataclass(frozen=True, slots=True)
class Hosts:
    """Set of hosts. `suffixes` such as `.harbor.test` stand for the subdomains of a host, without itself.

    Names are compared as they are written, in small letters. So a name beyond ASCII matches itself only, and never
    another one that some version of IDNA maps to the same.
    """

    exact: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Hosts:
        """Make a set from patterns: `example.org`, or `*.harbor.test`."""
        names = [pattern.lower() for pattern in patterns]
        suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        return cls(frozenset(name for name in names if not name.startswith("*.")), suffixes)

    def plus(self, *more: frozenset[str]) -> Hosts:
        return Hosts(self.exact.union(*more), self.suffixes)

    def __contains__(self, host: str) -> bool:
        name = host.lower()
        return name in self.exact or (bool(self.suffixes) and name.endswith(self.suffixes))


EVERY_HOST = Hosts(suffixes=("",))


def hosts_in(text: str) -> frozenset[str]:
    """Find all hosts in a text: of URLs, of mail addresses, and by themselves."""
    return frozenset(match.rstrip("-_").lower() for match in _HOST.findall(text))
