"""What a row holds of the request it tells of, and how many refusals are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.audit import record as module
from service.audit.record import MAX_DETAILS, Action, Refusals, network, record, wordless
from service.audit.started import differing, digest_of, record_settings
from service.store.actor import ANONYMOUS, NOWHERE, Actor, Origin, act_as, acting_as, serve
from service.store.database import Database
from tests.audit.house import read
from tests.made import settings_in


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("unix:", None),
        ("", None),
    ],
)
def test_address_is_kept_as_its_network(address: str, shown: str | None) -> None:
    assert network(address) == shown


def test_row_has_the_origin_of_its_request(db: Database) -> None:
    serve(Origin("203.0.113.77", "0123456789abcdef"))
    act_as(Actor("user", "usr_1", workspace_id="wsp_1"))
    try:
        db.transact(lambda tx: record(tx, Action.CAP_SET, "service", period="day"))
    finally:
        serve(NOWHERE)
    (row,) = read(db, "SELECT * FROM audit")
    shown = {
        name: row[name] for name in ("action", "subject", "address", "request_id", "workspace_id", "result")
    }
    assert shown == {
        "action": "cap.set",
        "subject": "service",
        "address": "203.0.113.0/24",
        "request_id": "0123456789abcdef",
        "workspace_id": "wsp_1",
        "result": "ok",
    }


@pytest.mark.parametrize("kept", ["4bf92f3577b34da6a3ce929d0e0e4736", "67e55044-10b1-426f-9247-bb680e5fe0c8"])
def test_request_id_with_words_is_kept_as_its_digest(kept: str) -> None:
    assert wordless(kept) == kept
    for words in ("ada-lovelace-asked", "ada.lovelace", "abc"):
        assert re.fullmatch("sha256-[0-9a-f]{32}", wordless(words))


def test_details_are_bounded(db: Database) -> None:
    with pytest.raises(ValueError, match="too large"):
        db.transact(lambda tx: record(tx, Action.CAP_SET, "service", text="x" * MAX_DETAILS))
    assert read(db, "SELECT id FROM audit") == []


def test_flood_of_refusals_is_bounded_and_counted(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BURST", 3.0)
    monkeypatch.setattr(module, "PER_SECOND", 0.0)
    refusals = Refusals(db)
    for _ in range(5):
        refusals.record(Action.SIGN_IN, "user:unknown")
    monkeypatch.setattr(refusals._sign_ins, "_per_second", 1e9)
    refusals.record(Action.SIGN_IN, "user:usr_1", workspace_id="wsp_1")
    refusals.record(Action.SIGN_IN, "user:usr_2")
    told = read(db, "SELECT subject, workspace_id, result, details FROM audit ORDER BY id")
    assert [row["subject"] for row in told] == ["user:unknown"] * 3 + ["user:usr_1", "user:usr_2"]
    assert {row["result"] for row in told} == {"refused"}
    assert ["left_out" in str(row["details"]) for row in told] == [False] * 4 + [True], (
        "in the same workspace"
    )
    assert told[-2]["workspace_id"] == "wsp_1"


def test_flood_of_one_user_hides_nobody_elses_refusals(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USER_BURST", 3.0)
    monkeypatch.setattr(module, "USER_PER_SECOND", 0.0)
    refusals = Refusals(db)

    def refuse(actor: Actor, action: Action = Action.ACCESS_REFUSED) -> None:
        with acting_as(actor):
            refusals.record(action, "route:DELETE /v1/auth/keys/<key_id>")

    for _ in range(5):
        refuse(Actor("user", "usr_eve", workspace_id="wsp_1"))
    refuse(ANONYMOUS, Action.SIGN_IN)
    refuse(Actor("user", "usr_ada", workspace_id="wsp_2"))
    refuse(Actor("user", "usr_bob", workspace_id="wsp_1"))
    told = read(db, "SELECT user_id, details FROM audit ORDER BY id")
    assert [row["user_id"] for row in told] == ["usr_eve"] * 3 + [None, "usr_ada", "usr_bob"]
    assert ["left_out" in str(row["details"]) for row in told] == [False] * 5 + [True], (
        "of its workspace only"
    )


def test_users_whose_refusals_are_counted_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_USERS", 2)
    refusals = Refusals(db)
    for number in range(4):
        with acting_as(Actor("user", f"usr_{number}")):
            refusals.record(Action.ACCESS_REFUSED, "route:x")
    assert list(refusals._users) == ["usr_2", "usr_3"]


def test_settings_are_recorded_once_for_each_change(db: Database, tmp_path: Path) -> None:
    first = settings_in(tmp_path)
    other = settings_in(tmp_path, SWEEP_SECONDS="7")
    secret = settings_in(tmp_path, ANTHROPIC_API_KEY="sk-ant-" + "y" * 16)
    for settings in (first, first, other, other, first, secret):
        record_settings(db, settings)
    told = read(db, "SELECT details FROM audit WHERE action = '" + Action.SETTINGS + "' ORDER BY id")
    assert len(told) == 4
    assert "SWEEP_SECONDS" in differing(other) and "SWEEP_SECONDS" not in differing(first)
    assert len({digest_of(settings) for settings in (first, other, secret)}) == 3
    assert "sk-ant" not in str(told)


def test_number_that_the_hash_has_no_form_for_is_refused_at_once(db: Database) -> None:
    """A row that no link can be made of would stand in the way of all after it."""
    with pytest.raises(ValueError):
        db.transact(lambda tx: record(tx, Action.CAP_SET, "service", amount=2**53 + 1))
    assert read(db, "SELECT * FROM audit") == []
