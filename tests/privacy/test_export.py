"""Export of a user: every word that is kept of them, by kinds, and no secret."""

from __future__ import annotations

import orjson

from service.audit.record import Action
from service.store import personal_data
from tests.privacy.house import House, house, postgres_url, url

__all__ = ["house", "postgres_url", "url"]


def test_export_has_every_word_that_is_kept(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    ada, bob = house.create(house.words, root), house.create(house.kept, root)
    house.live(ada, house.words, root, turns=25)
    house.live(bob, house.kept, root, turns=1)
    answer = house.ask(root, f"GET /v1/admin/users/{ada.id}/export", words=house.kept)
    assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson")
    lines = list(map(orjson.loads, answer.data.splitlines()))
    written = {kind.kind for kind in (*personal_data.OF_USER, *personal_data.OF_RUN)}
    assert {line["kind"] for line in lines} == {
        *written,
        "session",
        "message",
        "schedule",
        "schedule_slot",
        "run",
    } - {
        # She is no operator, no step waits for a batch, and there are no MCP servers.
        *("batch_item", "decision", "mcp_credential")
    }
    exported = set().union(*house.words.found([("export", answer.data)]).values())
    stored = [
        (name, row)
        for name, row in house.state()
        if name.startswith("rows") and name not in ("rows of idempotency", "rows of audit")
    ]
    assert exported == set().union(*house.words.found(stored).values())
    assert not house.kept.found([("export", answer.data)])
    assert b"argon2" not in answer.data
    assert len([line for line in lines if line["kind"] == "run"]) == 25 * 4 + 14
    rows = house.ask(root, f"GET /v1/admin/audit?action={Action.USER_EXPORTED}").get_json()["data"]
    assert [row["subject"] for row in rows] == [f"user:{ada.id}"]


def test_commands_export_and_erase(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    ada = house.create(house.words, root)
    house.live(ada, house.words, root, turns=1)
    runner = house.app.test_cli_runner()
    exported = runner.invoke(args=["users", "export", ada.username])
    assert exported.exit_code == 0, exported.output
    assert {orjson.loads(line)["kind"] for line in exported.stdout.splitlines()} >= {"user", "run", "message"}
    erased = runner.invoke(args=["users", "erase", ada.username])
    assert erased.exit_code == 0 and '"status": "erased"' in erased.output, erased.output
    assert not house.words.found(house.state())
    assert runner.invoke(args=["users", "export", ada.username]).exit_code == 1


def test_export_of_nobody_is_not_found(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    assert house.ask(house.token(demo), "GET /v1/admin/users/usr_none/export").status_code == 404
