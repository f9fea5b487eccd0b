"""Sealing: no word of an erased user is in a backup from before, or can be read once it is restored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.audit.chain import link_all
from service.audit.verify import verify_all
from service.auth.users import User
from service.privacy.export import export
from service.store import schema
from service.store.schema.sealed import ERASED
from service.usage import ledger
from tests.conftest import Model
from tests.privacy.canaries import in_files
from tests.privacy.house import House, house_in, postgres_url, url
from tests.privacy.sealed import PLAIN, back_up, house, keys, restore

__all__ = ["house", "keys", "postgres_url", "url"]


def people(house: House) -> tuple[str, User, User]:
    """Token of an admin, with Ada, who will be erased, and Bob, who stays."""
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    return root, house.create(house.words, root), house.create(house.kept, root)


def told(house: House, user: User) -> str:
    """Everything that is told of a user by their export, but for a delivery that is tried meanwhile."""
    kept = [{**row, "last_error": None} for row in export(house.services.infra.db, user.id)]
    return "\n".join(map(str, kept))


def verified(house: House) -> None:
    link_all(house.services.infra.db)
    assert all(found.ok for found in verify_all(house.services.infra.db))
    assert ledger.check(house.services.infra.db, house.services.usage.prices).faults == []


def test_backup_of_an_erased_user_has_no_word_of_theirs(
    house: House, url: str, keys: str, tmp_path: Path, model: Model, scratch: Path
) -> None:
    root, ada, bob = people(house)
    house.live(ada, house.words, root, turns=80)
    house.live(bob, house.kept, root, turns=2)
    assert len(house.words.words) >= 1000
    before, state = told(house, bob), house.words.found(house.state())
    names = set().union(*(state[place] for place in PLAIN))
    file = back_up(url, tmp_path)
    assert house.erased(ada.id)["verified_at"]
    assert house.words.found(in_files(tmp_path, "backup")) == {"backup": names}
    house.app.extensions["slipway"].close()
    restore(file, url)
    with house_in(tmp_path, url, model, scratch, KEYRING_URL=keys) as again:
        assert told(again, bob) == before
        assert set(re.findall(r"cnry\w{16}", told(again, ada))) == names
        verified(again)
        again.services.erasures.repeat_in_background()
        assert again.services.erasures.erase(ada.id)["status"] == "erased"
        assert not house.words.found(again.state())
        assert told(again, bob) == before


def test_no_plain_word_is_in_the_database(house: House) -> None:
    root, ada, _ = people(house)
    house.live(ada, house.words, root, turns=1)
    places = {place for place in house.words.found(house.state()) if place.startswith("rows")}
    assert places == PLAIN


def test_restored_user_is_told_as_erased_before_they_are_erased_again(house: House) -> None:
    root, ada, _ = people(house)
    house.live(ada, house.words, root, turns=1)
    assert house.services.keyring is not None
    house.services.keyring.destroy(ada.id)
    token = house.token(ada)
    for path in ("sessions", "runs", "approvals", "auth/keys"):
        found = house.ask(token, f"GET /v1/{path}").get_json()["data"]
        assert found and ERASED in str(found)
        for row in found if path in ("sessions", "runs") else ():
            answer = house.ask(token, f"GET /v1/{path}/{row.get('id') or row['run_id']}")
            assert answer.status_code == 200 and ERASED in answer.text, answer.text
    assert house.ask(token, "GET /v1/sessions?q=cnry").get_json()["data"] == []
    run = house.ask(token, "POST /v1/agents/common/invoke", {"input": "Tell me of frogs"})
    assert run.status_code == 200
    rows = house.services.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs.c.input)))
    assert {row["input"] for row in rows if row["input"] != ERASED} == set()


def test_comment_needs_the_key_of_its_author_too(house: House) -> None:
    """An operator's, about a call of somebody else, whose arguments stay."""
    _, ada, bob = people(house)
    ada = house.services.auth.users.change(ada.id, role="operator")
    word, comment = house.kept.word(), house.words.word()
    question = {"input": f'Call the write_line tool with "{word}".'}
    asked = house.ask(house.token(bob), "POST /v1/agents/clerk/invoke", question).get_json()
    decision = {"decision": "approve", "comment": comment}
    house.ask(house.token(ada), f"POST /v1/approvals/{asked['approvals'][0]}", decision)

    def shown() -> tuple[str, str]:
        [row] = house.ask(house.token(bob), "GET /v1/approvals").get_json()["data"]
        return row["comment"], row["arguments"]["text"]

    assert shown() == (comment, word)
    assert house.services.keyring is not None
    house.services.keyring.destroy(ada.id)
    assert shown() == (ERASED, word)


def test_titles_are_found_by_their_words(house: House) -> None:
    _, ada, _ = people(house)
    token = house.token(ada)
    for title in ("Frösche und Kröten", "birds", "slipway.sealed:usr_1/uky_1:AAAA"):
        assert house.ask(token, "POST /v1/sessions", {"agent": "clerk", "title": title}).status_code == 201
    found: dict[str, list[Any]] = {
        word: house.ask(token, f"GET /v1/sessions?q={word}").get_json()["data"]
        for word in ("frosche", "BIRDS", "usr_1/", "none")
    }
    assert [len(rows) for rows in found.values()] == [1, 1, 1, 0]


def test_rows_from_before_are_read_and_stay(house: House, url: str, tmp_path: Path) -> None:
    """As of a service without a keyring."""
    _, ada, _ = people(house)
    with house.services.infra.db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET limit_runs = NULL")
        row = {"id": "ses_old", "user_id": ada.id, "agent": "clerk", "summary_upto": 0}
        times = {"created_at": 1, "updated_at": 1, "expires_at": 2**50}
        columns = [sa.column(name) for name in (*row, "title", "metadata", *times)]
        connection.execute(
            sa.insert(sa.table("sessions", *columns)),
            {**row, **times, "title": "from before", "metadata": '{"a": 1}'},
        )
    answer = house.ask(house.token(ada), "GET /v1/sessions/ses_old")
    assert (answer.get_json()["title"], answer.get_json()["metadata"]) == ("from before", {"a": 1})


@pytest.mark.parametrize("change", ["changed", "moved"])
def test_damaged_value_is_not_shown_and_is_logged(
    house: House, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Changed, or moved from another column: each is bound to its own."""
    _, ada, _ = people(house)
    token = house.token(ada)
    created = house.ask(
        token, "POST /v1/sessions", {"agent": "clerk", "title": "frogs", "metadata": {"a": "b"}}
    )
    session = created.get_json()["id"]
    with house.services.infra.db.engine.begin() as connection:
        if change == "changed":
            connection.exec_driver_sql(
                "UPDATE sessions SET title = substr(title, 1, length(title) - 8) || 'AAAAAAA='"
            )
        else:
            metadata = connection.exec_driver_sql("SELECT metadata FROM sessions").scalar_one()
            text = metadata.strip('"')
            connection.execute(sa.text("UPDATE sessions SET title = :text"), {"text": text})
    answer = house.ask(token, f"GET /v1/sessions/{session}").get_json()
    assert (answer["title"], answer["metadata"]) == (ERASED, {"a": "b"})
    damaged = [record for record in caplog.records if record.message == "sealed_value_damaged"]
    assert {record.column for record in damaged} == {"sessions.title"}  # type: ignore[attr-defined]
