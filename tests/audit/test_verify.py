"""Tampering with the audit is found, and the row named, on both databases."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from service.audit import verify as module
from service.audit.chain import link_all
from service.audit.checkpoint import Checkpoints, NoCheckpoint
from service.audit.verify import AuditFault, FaultKind, Verifier
from service.store.actor import Actor
from service.store.database import Database
from service.store.schema import audit, audit_links
from service.types import DEFAULT_WORKSPACE
from tests.audit.house import linked, links, read, tamper, verify, write

COUNT = 7
OTHER = "wsp_" + "1" * 26
TEXT = ("workspace_id", "action", "actor", "user_id", "key_id", "subject", "address", "request_id", "result")
ROW = "(SELECT audit_id FROM audit_links WHERE seq = 4)"


class Tampering(NamedTuple):
    """Statements, and the fault that they are found as; `row`: which link's row is named, if any."""

    statements: tuple[str, ...]
    seq: int | None
    fault: FaultKind
    row: int | None


def row(sql: str) -> str:
    return f"UPDATE audit SET {sql} WHERE id = {ROW}"


def at(seq: int, sql: str) -> str:
    return f"UPDATE audit_links SET {sql} WHERE seq = {seq}"


SWAP = (at(3, "seq = 99"), at(5, "seq = 3"), at(99, "seq = 5"))
TAMPERINGS = {
    **{f"row's {name}": Tampering((row(f"{name} = 'x'"),), 4, "changed", 4) for name in TEXT},
    "row's time": Tampering((row("at = at + 1"),), 4, "changed", 4),
    "row's details": Tampering((row("""details = '{"number": 9}'"""),), 4, "changed", 4),
    "row's id": Tampering((row("id = 'aud_x'"),), 4, "missing", 4),
    "link's time": Tampering((at(4, "at = at + 1"),), 4, "changed", 4),
    "link's hash": Tampering((at(4, "hash = previous"),), 4, "changed", 4),
    "link's previous": Tampering((at(4, "previous = hash"),), 4, "order", 4),
    "link's row": Tampering((at(4, "audit_id = 'aud_x'"),), 4, "missing", None),
    "link's workspace": Tampering((at(4, f"workspace_id = '{OTHER}'"),), 4, "missing", None),
    "link's number": Tampering((at(4, "seq = 99"),), 4, "missing", None),
    "first row deleted": Tampering(
        ("DELETE FROM audit WHERE id = (SELECT audit_id FROM audit_links WHERE seq = 1)",), 1, "missing", 1
    ),
    "row deleted": Tampering((f"DELETE FROM audit WHERE id = {ROW}",), 4, "missing", 4),
    "last row deleted": Tampering(
        (f"DELETE FROM audit WHERE id = (SELECT audit_id FROM audit_links WHERE seq = {COUNT})",),
        COUNT,
        "missing",
        COUNT,
    ),
    "first link deleted": Tampering(("DELETE FROM audit_links WHERE seq = 1",), 1, "missing", 1),
    "link deleted": Tampering(("DELETE FROM audit_links WHERE seq = 4",), 4, "missing", 4),
    "last link deleted": Tampering(
        (f"DELETE FROM audit_links WHERE seq = {COUNT}",), None, "unlinked", COUNT
    ),
    "row and link deleted": Tampering(
        (f"DELETE FROM audit WHERE id = {ROW}", "DELETE FROM audit_links WHERE seq = 4"), 4, "missing", None
    ),
    "links swapped": Tampering(SWAP, 3, "order", 5),
    "rows of two links swapped": Tampering(
        (
            at(3, "audit_id = 'aud_x'"),
            "UPDATE audit_links SET audit_id = (SELECT id FROM audit ORDER BY id LIMIT 1 OFFSET 2) WHERE seq = 5",
            "UPDATE audit_links SET audit_id = (SELECT id FROM audit ORDER BY id LIMIT 1 OFFSET 4) WHERE seq = 3",
        ),
        3,
        "changed",
        5,
    ),
    "row inserted": Tampering(
        (
            "INSERT INTO audit (id, workspace_id, at, action, actor, subject, result, details) "
            f"VALUES ('aud_forged', '{DEFAULT_WORKSPACE}', 5, 'sign_in', 'user', 'user:usr_1', 'ok', '{{}}')",
        ),
        None,
        "unlinked",
        None,
    ),
    "link inserted between": Tampering(
        (
            "INSERT INTO audit (id, workspace_id, at, action, actor, subject, result, details) "
            f"VALUES ('aud_forged', '{DEFAULT_WORKSPACE}', 5, 'sign_in', 'user', 'user:usr_1', 'ok', '{{}}')",
            "UPDATE audit_links SET seq = seq + 100 WHERE seq > 4",
            "UPDATE audit_links SET seq = seq - 99 WHERE seq > 100",
            "INSERT INTO audit_links (workspace_id, seq, audit_id, previous, hash, at) SELECT workspace_id, 5, "
            "'aud_forged', hash, hash, at FROM audit_links WHERE seq = 4",
        ),
        5,
        "changed",
        None,
    ),
    "details that are no JSON": Tampering((row("details = '{'"),), 4, "changed", 4),
    "time that is no number": Tampering((row("at = 'x'"),), 4, "changed", 4),
}
SQLITE_ONLY = {"details that are no JSON", "time that is no number"}  # PostgreSQL knows the types


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_and_named(db: Database, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in SQLITE_ONLY and not db.sqlite:
        pytest.skip("refused by the database")
    monkeypatch.setattr(module, "YOUNG_MS", -1)
    statements, seq, fault, of = TAMPERINGS[name]
    before = linked(db, COUNT)
    assert verify(db).ok
    tamper(db, *statements)
    found = verify(db)
    assert not found.ok and found.first_fault is not None
    assert (found.first_fault.seq, found.first_fault.fault) == (seq, fault)
    if of is not None:
        assert found.first_fault.audit_id == before[of - 1]["audit_id"]


def test_every_column_is_tampered_with() -> None:
    assert {f"row's {name}" for name in TEXT} < set(TAMPERINGS)
    names = {column.name for column in audit.columns} - {*TEXT, "id", "at", "details"}
    assert names == set()
    assert {column.name for column in audit_links.columns} == {
        *("workspace_id", "seq", "audit_id", "previous", "hash", "at")
    }


def test_chain_of_each_workspace_is_verified_in_batches(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    linked(db, COUNT)
    write(db, 2, Actor("user", "usr_bob", workspace_id=OTHER))
    link_all(db)
    found = list(module.verify_all(db))
    assert [(one.workspace_id, one.checked, one.head.seq) for one in found] == [
        (DEFAULT_WORKSPACE, COUNT, COUNT),
        (OTHER, 2, 2),
    ]
    assert all(one.ok for one in found)


def test_unlinked_rows_are_told_apart_until_they_are_old(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(db, 2)
    write(db, 3)
    write(db, 1, Actor("user", "usr_bob", workspace_id=OTHER))
    found = verify(db)
    assert (found.ok, found.unlinked, found.checked) == (True, 3, 2)
    monkeypatch.setattr(module, "YOUNG_MS", -1)
    late = verify(db)
    assert late.first_fault is not None and late.first_fault.fault == "unlinked"
    assert late.unlinked == 0


@pytest.mark.parametrize(
    ("statement", "seq", "fault", "of"),
    [
        ("DELETE FROM audit_links WHERE seq = 4", 4, "missing", 4),
        (f"DELETE FROM audit_links WHERE seq = {COUNT}", None, "unlinked", COUNT),
        (
            "INSERT INTO audit (id, workspace_id, at, action, actor, subject, result, details) SELECT 'aud_forged', "
            f"workspace_id, at, action, actor, subject, result, details FROM audit WHERE id = {ROW}",
            None,
            "unlinked",
            None,
        ),
    ],
)
def test_tampering_is_found_within_the_minute(
    db: Database, statement: str, seq: int | None, fault: FaultKind, of: int | None
) -> None:
    """The row's own time, which a forger writes, excuses nothing."""
    before = linked(db, COUNT)
    tamper(db, statement)
    assert verify(db).first_fault == AuditFault(
        seq, before[of - 1]["audit_id"] if of else "aud_forged", fault
    )


def test_verification_stops_in_time_and_goes_on(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    linked(db, COUNT)
    first = Verifier(db, DEFAULT_WORKSPACE, seconds=-1).verify()
    assert (first.ok, first.partial, first.head.seq) == (False, True, 3)
    rest = Verifier(db, DEFAULT_WORKSPACE).verify(first.head.seq)
    assert (rest.ok, rest.checked, rest.head.seq) == (True, COUNT - 3, COUNT)
    tamper(db, at(5, "at = at + 1"))
    fault = Verifier(db, DEFAULT_WORKSPACE).verify(3).first_fault
    assert fault is not None and fault.seq == 5
    nothing = Verifier(db, DEFAULT_WORKSPACE).verify(99).first_fault
    assert nothing == AuditFault(99, None, "missing")


def test_rows_that_have_a_link_are_read_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for rows without one leaves them to the database, or a long audit would never be verified in time."""
    monkeypatch.setattr(module, "BATCH", 2)
    linked(db, COUNT)
    write(db, 1)
    counts: list[int] = []
    found = Verifier(db, DEFAULT_WORKSPACE, read=counts.append).verify()
    assert (found.checked, found.unlinked, sum(counts)) == (COUNT, 1, COUNT + 1)


def test_cut_tail_and_a_history_written_anew_show_with_a_checkpoint_only(db: Database) -> None:
    points = Checkpoints(db, "a secret")
    linked(db, COUNT)
    (line,) = points.lines()
    point = points.read(line)
    assert points.compare(point) is None
    ids = f"(SELECT audit_id FROM audit_links WHERE seq > {COUNT - 2})"
    tamper(db, f"DELETE FROM audit WHERE id IN {ids}", f"DELETE FROM audit_links WHERE seq > {COUNT - 2}")
    assert verify(db).ok
    assert points.compare(point) == AuditFault(COUNT, None, "cut")
    linked(db, 2)
    assert verify(db).ok
    fault = points.compare(point)
    assert fault is not None and (fault.seq, fault.fault) == (COUNT, "rewritten")


def test_checkpoint_is_of_its_key(db: Database) -> None:
    ours, theirs = Checkpoints(db, "a secret"), Checkpoints(db, "another")
    linked(db, 1)
    (line,) = ours.lines()
    with pytest.raises(NoCheckpoint, match="not signed"):
        theirs.read(line)
    assert theirs.read(line, ours.public_key).seq == 1
    for wrong in (line.replace('"seq":1', '"seq":2'), line.replace(DEFAULT_WORKSPACE, OTHER)):
        with pytest.raises(NoCheckpoint, match="not signed"):
            ours.read(wrong)
    for broken in ("", "{}", "[]", '{"seq": NaN}', line.replace('"signature":"', '"signature":"*')):
        with pytest.raises(NoCheckpoint, match="is no checkpoint"):
            ours.read(broken)


def test_row_changed_before_it_was_linked_is_linked_as_it_is_and_a_deleted_one_is_missing(
    db: Database,
) -> None:
    """What the chain cannot know is the second before a link; a row that is gone by then still has its place."""
    write(db, 3)
    ids = [one["id"] for one in read(db, "SELECT id FROM audit ORDER BY id")]
    tamper(db, f"DELETE FROM audit WHERE id = '{ids[1]}'")
    link_all(db)
    assert [one["audit_id"] for one in links(db)] == ids
    assert verify(db).first_fault == AuditFault(2, ids[1], "missing")
