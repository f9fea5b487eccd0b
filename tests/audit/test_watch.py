"""Watch over the audit: what was tampered with is found in the background, on both databases."""

from __future__ import annotations

import pytest

from service.audit import verify, watch
from service.audit.watch import AuditWatch
from service.store.database import Database
from tests.audit.house import linked, tamper


def test_an_intact_audit_is_told_as_such(db: Database) -> None:
    told = list[bool]()
    AuditWatch(db, told.append).look()
    linked(db, 3)
    AuditWatch(db, told.append).look()
    assert told == [True, True]


def test_a_changed_row_is_told_and_logged(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    linked(db, 3)
    tamper(db, "UPDATE audit SET subject = 'x' WHERE id = (SELECT audit_id FROM audit_links WHERE seq = 2)")
    told = list[bool]()
    watching = AuditWatch(db, told.append)
    watching.look()
    watching.look()
    assert told == [False, False]
    record = vars(caplog.records[0])
    assert (record["message"], record["seq"], record["fault"]) == ("audit_broken", 2, "changed")


def test_a_long_audit_is_verified_in_pieces(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BATCH", 2)
    monkeypatch.setattr(watch, "PIECE_SECONDS", -1.0)  # a batch each
    linked(db, 5)
    tamper(db, "UPDATE audit SET subject = 'x' WHERE id = (SELECT audit_id FROM audit_links WHERE seq = 5)")
    told = list[bool]()
    watching = AuditWatch(db, told.append)
    watching.look()
    watching.look()
    assert told == []
    watching.look()
    assert told == [False]


def test_it_looks_when_it_is_time_to(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[bool]()
    watching = AuditWatch(db, told.append)
    monkeypatch.setattr(watching, "_next", 0.0)
    watching._look()
    watching.look_in_background()  # the next round is far off
    assert told == [True]
