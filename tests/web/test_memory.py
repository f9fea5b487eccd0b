"""Notes over HTTP: whose they are, faults, bounds, retries, and what the audit tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service.audit.record import Action
from service.store import memory as rows
from service.store.memory import Holder, Writing
from service.wiring import Services
from tests.made import app_in, close
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
PASSWORD = "a-password-of-some-length"


class Asked:
    """Requests by a key of a user, or by a log-in without one."""

    def __init__(self, app: Flask, name: str, *scopes: str, signed_in: bool = False) -> None:
        services: Services = app.extensions["slipway"]
        user = services.auth.users.by_name(name) or services.auth.users.create(name, PASSWORD)
        self.app, self.user_id = app, user.id
        if signed_in:
            self._token = services.auth.tokens.begin(user).access_token
        else:
            key = services.auth.keys.create(user.id, "k", scopes)
            self.key_id, self._token = key["id"], key["key"]

    def __call__(self, name: str, body: Any = None, key: str | None = None) -> TestResponse:
        method, path = name.split(" ")
        headers = {"Authorization": f"Bearer {self._token}"}
        headers |= {"Idempotency-Key": key} if key else {}
        client = self.app.test_client()
        return client.open(f"/v1/{path}", method=method, json=body, headers=headers, buffered=True)

    def put(self, key: str, text: str, query: str = "") -> dict[str, Any]:
        answer = self(f"PUT memory/{key}{query}", {"text": text})
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.get_json()
        return made

    def keys(self, query: str = "") -> list[str]:
        answer = self(f"GET memory{query}")
        assert answer.status_code == 200, answer.text
        return [each["key"] for each in answer.get_json()["data"]]


@pytest.fixture
def app(tmp_path: Path, url: str) -> Iterator[Flask]:
    made = app_in(tmp_path, DATABASE_URL=url)
    yield made
    close(made)


@pytest.fixture
def ada(app: Flask) -> Asked:
    return Asked(app, "ada")


def test_notes_are_written_read_replaced_and_deleted(ada: Asked) -> None:
    made = ada.put("language", "Writes British English.")
    assert (made["agent"], made["untrusted"], made["key"]) == (None, [], "language")
    again = ada.put("language", "Writes Scots.")
    assert again["created_at"] == made["created_at"] and again["updated_at"] >= made["updated_at"]
    assert ada("GET memory/language").get_json()["text"] == "Writes Scots."
    for key in ("b", "a"):
        ada.put(key, "x")
    page = ada("GET memory?limit=2").get_json()
    assert [each["key"] for each in page["data"]] == ["a", "b"] and "text" not in page["data"][0]
    assert ada.keys(f"?limit=2&cursor={page['next_cursor']}") == ["language"]
    assert ada("DELETE memory/a").status_code == 204
    assert ada("DELETE memory/a").status_code == 404
    assert ada.keys() == ["b", "language"]


def test_nobody_else_has_them(app: Flask, ada: Asked) -> None:
    ada.put("language", "Writes British English.")
    for other in (Asked(app, "bob"), Asked(app, "demo")):
        assert other.keys() == []
        assert other("GET memory/language").status_code == 404
        assert other("DELETE memory/language").status_code == 404
        other.put("language", "Writes Dutch.")
    assert ada("GET memory/language").get_json()["text"] == "Writes British English."


def test_end_users_are_apart_by_key_and_name(app: Flask, ada: Asked) -> None:
    """Two applications of one account may each have a customer 42."""
    second, signed_in = Asked(app, "ada"), Asked(app, "ada", signed_in=True)
    ada.put("size", "Wears 38.", "?end_user=42")
    second.put("size", "Wears 44.", "?end_user=42")
    ada.put("size", "Wears 40.", "?end_user=43")
    assert ada.keys() == second.keys() == []
    assert ada("GET memory/size?end_user=42").get_json()["text"] == "Wears 38."
    assert second("GET memory/size?end_user=42").get_json()["text"] == "Wears 44."
    assert signed_in("GET memory/size?end_user=42").status_code == 404
    by_id = f"?end_user=42&key_id={ada.key_id}"
    assert signed_in(f"GET memory/size{by_id}").get_json()["text"] == "Wears 38."
    assert second(f"GET memory/size{by_id}").status_code == 403
    assert signed_in(f"DELETE memory/size{by_id}").status_code == 204
    assert ada("GET memory/size?end_user=42").status_code == 404
    assert (
        Asked(app, "bob", signed_in=True)(f"GET memory/size?end_user=43&key_id={ada.key_id}").status_code
        == 404
    )


def test_key_for_some_agents_reaches_what_they_have_written(app: Flask, ada: Asked) -> None:
    services: Services = app.extensions["slipway"]
    ada.put("own", "Mine.")
    for agent in ("support", "analyst"):
        by = Writing(agent)
        services.infra.db.transact(
            lambda tx, by=by: rows.put(tx, Holder(ada.user_id), f"of-{by.agent}", "x", by)
        )  # type: ignore[misc]
    scoped = Asked(app, "ada", "agents:support")
    assert scoped.keys() == ["of-support"]
    for key in ("own", "of-analyst", "new"):
        assert scoped(f"PUT memory/{key}", {"text": "x"}).status_code == 404
        assert scoped(f"DELETE memory/{key}").status_code == 404
    assert scoped.put("of-support", "Better.")["agent"] == "support"
    assert Asked(app, "ada", "actions:memory:read")("PUT memory/own", {"text": "x"}).status_code == 403
    assert ada.keys() == ["of-analyst", "of-support", "own"]


FAULTS: list[tuple[str, Any, str]] = [
    ("PUT memory/-a", {"text": "x"}, "/note_key"),
    ("PUT memory/a%20b", {"text": "x"}, "/note_key"),
    (f"PUT memory/{'a' * 65}", {"text": "x"}, "/note_key"),
    ("PUT memory/a", {"text": ""}, "/text"),
    ("PUT memory/a", {"text": "x" * 4_001}, "/text"),
    ("PUT memory/a", {"text": "a\0b"}, "/text"),
    ("PUT memory/a", {"text": 1}, "/text"),
    ("PUT memory/a", {"text": "x", "agent": "support"}, "/agent"),
    ("PUT memory/a", {}, "/text"),
    ("PUT memory/a?end_user=*", {"text": "x"}, "/end_user"),
    (f"PUT memory/a?end_user={'x' * 65}", {"text": "x"}, "/end_user"),
    ("PUT memory/a?key_id=1", {"text": "x"}, "/key_id"),
    ("PUT memory/a?user_id=1", {"text": "x"}, "/user_id"),
    ("GET memory?end_user=", None, "/end_user"),
    ("GET memory?limit=0", None, "/limit"),
]


def test_faults_are_pointed_at(ada: Asked) -> None:
    for name, body, pointer in FAULTS:
        answer = ada(name, body)
        assert answer.status_code == 422, (name, answer.text)
        assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer], name
    assert ada.keys() == []


def test_retry_is_answered_as_the_first_and_never_for_another_person(ada: Asked) -> None:
    first = ada("PUT memory/a?end_user=42", {"text": "x"}, key="k")
    again = ada("PUT memory/a?end_user=42", {"text": "x"}, key="k")
    assert first.get_json() == again.get_json() and again.headers["Idempotency-Replayed"] == "true"
    other = ada("PUT memory/a?end_user=43", {"text": "x"}, key="k")
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")
    gone = ada("DELETE memory/a?end_user=42", key="d")
    lost = ada("DELETE memory/a?end_user=42", key="d")
    assert (gone.status_code, lost.status_code, lost.text) == (204, 204, "")
    assert lost.headers["Idempotency-Replayed"] == "true" and "Content-Length" not in lost.headers
    assert ada("DELETE memory/a?end_user=42").status_code == 404


def test_notes_are_bounded_for_each_person_and_in_all(
    app: Flask, ada: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_NOTES", 3)
    monkeypatch.setattr(rows, "MAX_ALL", 5)
    for key in "abc":
        ada.put(key, "x")
    full = ada("PUT memory/d", {"text": "x"})
    assert (full.status_code, full.get_json()["code"]) == (409, "too_many")
    ada.put("c", "Replaces.")
    ada.put("a", "x", "?end_user=42")
    ada.put("b", "x", "?end_user=43")
    assert ada("PUT memory/c?end_user=44", {"text": "x"}).status_code == 409
    assert Asked(app, "bob").put("a", "x")


def test_changes_are_audited_without_a_word_of_them(app: Flask, ada: Asked) -> None:
    ada.put("canary", "canary", "?end_user=canary")
    ada("DELETE memory/canary?end_user=canary")
    db = app.extensions["slipway"].infra.db
    found = db.query(lambda tx: list(map(dict, tx.rows(sa.text("SELECT * FROM audit ORDER BY id")))))
    told = [(row["action"], row["subject"]) for row in found if row["action"].startswith("memory")]
    subject = f"user:{ada.user_id}"
    assert told == [(Action.MEMORY_CHANGED, subject), (Action.MEMORY_DELETED, subject)]
    assert "canary" not in str(found)
