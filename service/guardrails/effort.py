"""Bound of the work that guardrails do for one request or one answer, whatever its texts hold."""

from __future__ import annotations

MOST = 4_000_000  # units: characters, and those below; of the dearest texts some seconds of a processor
LOOK = 40  # units of a place at which a value may begin
RULE = 1  # of a rule tried at such a place
TEXT = 20  # of each text


class Effort:
    """Units that are left for the texts of one request or one answer."""

    def __init__(self) -> None:
        self.left = MOST

    def spend(self, units: int) -> bool:
        """Take units off; return whether there were as many."""
        self.left -= units
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        return self.left < 0

    def renew(self) -> None:
        """Begin with the next request or answer."""
        self.left = MOST
