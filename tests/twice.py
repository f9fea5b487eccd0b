"""Writes that run twice: `Database.transact` must give the same result then, and leave the same rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import pytest

from service.errors import DatabaseUnavailable
from service.store.database import Database, Transaction

Way = Literal["committed", "undone"]  # the end of each first run: its answer is lost, or it is rolled back
WAYS: tuple[Way, ...] = ("committed", "undone")


def write_twice(way: Way, patched: pytest.MonkeyPatch) -> None:
    """Let the first run of every write fail: after its COMMIT, or in place of it, once its function has run.

    Not where the caller has no patience: it gets the failure, as it would get a real one.
    """
    due = threading.local()  # by thread, as hooks run in the writer's
    transact = Database.transact

    def transact_twice(self: Database, work: Callable[[Transaction], Any], **options: Any) -> Any:
        due.failure = options.get("patience") != 0
        try:
            return transact(self, work, **options)
        finally:
            due.failure = False

    failing = "committed" if way == "committed" else "commit"
    step = getattr(Transaction, failing)

    def fail_first(self: Transaction) -> None:
        if getattr(due, "failure", False):
            due.failure = False
            raise DatabaseUnavailable("The first run of a write fails.")
        step(self)

    patched.setattr(Database, "transact", transact_twice)
    patched.setattr(Transaction, failing, fail_first)
