"""Notices by webhook, such as warnings about a cap: each is delivered once, or fails for good."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote

from standardwebhooks import Webhook

from service.store.database import Database
from service.store.schema import metadata
from service.webhooks import Webhooks
from tests.jobs.conftest import receiver
from tests.jobs.house import Receiver, until
from tests.webhook_db import db

__all__ = ["db", "receiver"]


def test_notice_is_delivered_once_per_name(db: Database, receiver: Receiver) -> None:
    hooks = [Webhooks(db, "secret", allow_private=True) for _ in range(2)]
    for hook in hooks:
        for name in ("notice-1", "notice-2"):
            with db.begin() as tx:
                hook.notice(tx, name, receiver.url, "somebody", {"notice": name})
    until(lambda: _states(db) == {"delivered"}, "both")
    for name in ("notice-1", "notice-2"):
        [told] = receiver.of(name)
        assert told.headers["webhook-id"] == name
        assert Webhook(hooks[0].secret_of("somebody")).verify(told.body, told.headers) == {"notice": name}


def test_notice_of_an_end_user_of_any_name_is_delivered(db: Database, receiver: Receiver) -> None:
    name = "end_user:key_1/zoë / 100%/day/0/80"
    hooks = Webhooks(db, "secret", allow_private=True)
    db.transact(lambda tx: hooks.notice(tx, name, receiver.url, "somebody", {"notice": name}))
    until(lambda: receiver.of(name), "the delivery")
    [told] = receiver.of(name)
    assert unquote(told.headers["webhook-id"]) == name and told.headers["webhook-id"].isascii()


def test_a_notice_to_a_private_address_fails_for_good(db: Database) -> None:
    hooks = Webhooks(db, "secret", allow_private=False)
    with db.begin() as tx:
        hooks.notice(tx, "notice-3", "http://127.0.0.1/hook", "somebody", {})
    until(lambda: _states(db) == {"failed"}, "the refusal")


def test_rolled_back_notice_is_not_delivered(db: Database, receiver: Receiver) -> None:
    hooks = Webhooks(db, "secret", allow_private=True)
    with suppress(KeyError), db.begin() as tx:
        hooks.notice(tx, "notice-4", receiver.url, "somebody", {"notice": "notice-4"})
        raise KeyError
    hooks.send_due()
    with db.begin() as tx:
        hooks.notice(tx, "notice-5", receiver.url, "somebody", {"notice": "notice-5"})
    until(lambda: receiver.of("notice-5"), "the other")
    assert receiver.of("notice-4") == []


def _states(db: Database) -> set[str]:
    return {row["status"] for row in db.query(lambda tx: tx.rows(metadata.tables["notices"].select()))}
