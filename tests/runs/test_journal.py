"""Writes of a step's transaction, in the order of its locks: see "Locks" in docs/architecture.md."""

from __future__ import annotations

from service.runs.journal import Journal
from service.store.database import Transaction
from tests.runs.house import asked, run_of
from tests.usage.conftest import Make, make

__all__ = ["make"]


def test_money_is_written_last_after_its_lock(make: Make) -> None:
    written: list[str] = []

    def note(what: str, tx: Transaction) -> None:
        written.append(what)

    journal = Journal(make().db, run_of(asked("Hello")), lambda events: None, opening=lambda tx: True)
    journal.write_with_next(lambda tx: note("settle", tx))
    journal.commit(
        lambda tx: note("claim", tx), first=lambda tx: note("lock", tx), last=lambda tx: note("hold", tx)
    )
    assert written == ["claim", "lock", "settle", "hold"]
