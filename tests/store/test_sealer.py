"""Sealed values: what opens them, and what does not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import KeyringUnavailable
from service.store.database import Database
from service.store.schema.sealed import ERASED, SealedJson, SealedText
from service.store.sealer import MARK, Keys, Sealer
from service.store.statement import Statement

META = sa.MetaData()
NOTES = sa.Table(
    "notes",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", SealedText("notes.text")),
    sa.Column("more", SealedJson("notes.more", {"gone": True})),
    sa.Column("plain", sa.String(40)),
)
ADD, READ = Statement(sa.insert(NOTES)), Statement(sa.select(NOTES).order_by(NOTES.c.id))
ADA, BOB = "usr_ada", "usr_bob"
NOTE = {"id": 1, "text": "frogs 🐸", "more": {"a": [1, "b"]}, "plain": "toads"}


class Ring:
    """Keys in memory, by user."""

    def __init__(self, *users: str) -> None:
        self.keys: dict[str, dict[str, bytes]] = {}
        for user in users:
            self.add(user)

    def add(self, user: str) -> None:
        of_user = self.keys.setdefault(user, {})
        of_user[f"uky_{len(of_user)}"] = f"{user}{len(of_user)}".encode().ljust(32, b"-")

    def to_seal(self, user_id: str) -> Keys:
        return self.keys[user_id]

    def to_open(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Keys]:
        return {user: self.keys[user] for user in wanted if user in self.keys}


@pytest.fixture
def ring() -> Ring:
    return Ring(ADA, BOB)


@pytest.fixture
def db(url: str, ring: Ring) -> Any:
    made = Database(url.replace("postgresql://", "postgresql+psycopg://", 1), keys=ring)
    META.create_all(made.engine)
    yield made
    made.close()


def add(db: Database, *owners: str, **more: Any) -> None:
    db.transact(lambda tx: tx.execute(ADD, tx.sealed(NOTES, {**NOTE, **more}, *(owners or (ADA,)))))


def read(db: Database) -> dict[str, Any]:
    """Read the note in both ways: compiled, and by SQLAlchemy."""
    row = db.query(lambda tx: tx.row(READ))
    labelled = sa.select(sa.case((NOTES.c.id == 1, NOTES.c.text)).label("said"), NOTES.c.more)
    other = db.query(lambda tx: tx.row(sa.select(labelled.subquery())))
    assert row is not None and other == {"said": row["text"], "more": row["more"]}
    return dict(row)


def stored(db: Database) -> dict[str, Any]:
    with db.engine.connect() as connection:
        return dict(connection.execute(sa.text("SELECT * FROM notes")).mappings().one())


def test_sealed_value_is_read_as_it_was_written(db: Database) -> None:
    add(db)
    row = stored(db)
    assert (
        "frogs" not in str(row) and row["text"].startswith(f"{MARK}{ADA}/uky_0:") and row["plain"] == "toads"
    )
    assert read(db) == NOTE


def test_same_text_is_never_sealed_to_the_same_bytes(db: Database) -> None:
    add(db)
    before = stored(db)["text"]
    db.transact(lambda tx: tx.execute(sa.update(NOTES).values(tx.sealed(NOTES, {"text": NOTE["text"]}, ADA))))
    assert stored(db)["text"] != before


def test_empty_values_stay(db: Database) -> None:
    add(db, text="", more=None)
    assert read(db) == {**NOTE, "text": "", "more": None} and stored(db)["text"] == ""


def test_value_without_an_owner_is_refused(db: Database) -> None:
    for statement in (ADD, sa.insert(NOTES)):
        with pytest.raises((TypeError, sa.exc.StatementError), match=r"notes\.text is not from"):
            db.transact(lambda tx, it=statement: tx.execute(it, NOTE))  # type: ignore[misc]


def test_text_that_looks_sealed_is_a_text(db: Database, url: str) -> None:
    words = [f"{MARK}{BOB}/uky_0:AAAA", f"{MARK}plain:x", MARK]
    unsealed = Database(url.replace("postgresql://", "postgresql+psycopg://", 1))
    for each in (db, unsealed):
        for word in words:
            db.transact(lambda tx: tx.execute(sa.delete(NOTES)))
            add(each, text=word, more=word)
            assert (read(db)["text"], read(unsealed)["more"] if each is unsealed else word) == (word, word)
    unsealed.close()


def test_newest_key_seals_and_all_open(db: Database, ring: Ring) -> None:
    add(db)
    ring.add(ADA)
    assert read(db) == NOTE
    db.transact(lambda tx: tx.execute(sa.update(NOTES).values(tx.sealed(NOTES, {"text": "toads"}, ADA))))
    assert "/uky_1:" in stored(db)["text"] and "/uky_0:" in str(stored(db)["more"])
    assert read(db) == {**NOTE, "text": "toads"}


def test_text_of_two_needs_the_keys_of_both(db: Database, ring: Ring) -> None:
    add(db, BOB, ADA, BOB)
    assert read(db) == NOTE
    for user in (ADA, BOB):
        before = ring.keys[user]
        ring.keys[user] = {}
        assert read(db) == {**NOTE, "text": ERASED, "more": {"gone": True}}
        ring.keys[user] = before


def test_destroyed_key_opens_nothing_and_seals_nothing(db: Database, ring: Ring) -> None:
    add(db)
    ring.keys[ADA] = {}
    gone = {**NOTE, "text": ERASED, "more": {"gone": True}}
    assert read(db) == gone
    db.transact(lambda tx: tx.execute(sa.delete(NOTES)))
    add(db)
    assert read(db) == gone and "frogs" not in str(stored(db))


def test_key_that_was_never_there_is_an_outage(db: Database, ring: Ring, url: str) -> None:
    add(db)
    db.patience = 0.1
    ring.keys[ADA] = {"uky_other": b"x" * 32}
    for _ in range(2):
        with pytest.raises(KeyringUnavailable):
            read(db)
        ring.keys.pop(ADA, None)
    without = Database(url.replace("postgresql://", "postgresql+psycopg://", 1), patience=0.1)
    with pytest.raises(KeyringUnavailable):
        read(without)
    without.close()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text, _: text[:-4] + "AAA=", id="changed"),
        pytest.param(lambda text, _: text[:70], id="cut"),
        pytest.param(lambda text, _: text.replace(ADA, BOB), id="given to another"),
        pytest.param(lambda _, more: more, id="moved to another column"),
        pytest.param(lambda *_: f"{MARK}x", id="no owner"),
        pytest.param(lambda *_: f"{MARK}{ADA}/uky_0:", id="no content"),
        pytest.param(lambda *_: f"{MARK}{ADA}/uky_0:Ä", id="no base64"),
    ],
)
def test_damaged_value_is_not_shown(db: Database, change: Any, caplog: pytest.LogCaptureFixture) -> None:
    add(db)
    row = stored(db)
    more = row["more"] if row["more"].startswith(MARK) else row["more"].strip('"')
    with db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE notes SET text = :text"), {"text": change(row["text"], more)})
    caplog.set_level(logging.ERROR, logger="slipway.keyring")
    assert read(db) == {**NOTE, "text": ERASED}
    assert {record.message for record in caplog.records} == {"sealed_value_damaged"}


def test_digest_stands_for_a_text_where_texts_are_sealed(ring: Ring) -> None:
    sealing, plain = Sealer(ring), Sealer(None)
    assert plain.digest(ADA, "key") == "key"
    digests = {sealing.digest(user, text) for user in (ADA, BOB) for text in ("key", "other")}
    assert len(digests) == 4 and all(len(each) == 64 for each in digests)
    assert sealing.digest(ADA, "key") == sealing.digest(ADA, "key")
