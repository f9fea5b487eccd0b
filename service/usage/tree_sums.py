"""Verification of trees of sub-agents in the ledger: the sum of each tree's account is zero once all is over."""

from __future__ import annotations

from collections.abc import Iterator

from service.store.database import Row
from service.store.holds import Hold
from service.store.ledger import HELD, TREE, UPSTREAM

ACCOUNTS = {  # of the rows of an entry, by its kind
    "hold": ({"user", HELD}, {"user", TREE}, {TREE, HELD}),
    "settle": ({"user", HELD, UPSTREAM}, {TREE, HELD, UPSTREAM}),
    "release": ({"user", TREE},),
}


class TreeSums:
    """Sums of the rows read so far, by account of a tree.

    The entries of a tree are read before those of its calls, whose ids are later, so few sums are not zero at a time.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}  # … that are not zero
        self._ended: set[str] = set()  # … of those whose release was read

    def add(self, row: Row) -> None:
        account = row["account"]
        left = self._sums.pop(account, 0) + row["amount_nano"]
        if row["kind"] == "release":
            self._ended.add(account)
        if left:
            self._sums[account] = left
        else:
            self._ended.discard(account)

    def left_over(self) -> Iterator[tuple[str, int]]:
        """Yield accounts of trees that have ended, with the nano-dollars that are not accounted for."""
        for account in sorted(self._ended & self._sums.keys()):
            yield account, self._sums[account]


def payers(row: Row, reference: Row) -> set[str]:
    """Return the accounts that may pay for a call: of its user, or of the tree of the row."""
    account = row["account"]
    return {f"user:{reference['user_id']}", *([account] if account.startswith(f"{TREE}:") else [])}


def holds_as_much(entry: Row, hold: Hold) -> bool:
    """Return whether an open hold has the amount of its entry; of a tree's, calls have taken some."""
    if hold.is_tree:
        return bool(0 <= hold.amount_nano <= entry["amount_nano"])
    return bool(entry["amount_nano"] == hold.amount_nano)
