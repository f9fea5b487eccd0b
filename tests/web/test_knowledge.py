"""Documents of workspaces over HTTP: who may, what fits, and which runs read them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service.ids import new_id
from service.knowledge.formats import MAX_DOCUMENT
from service.store.schema import messages
from tests.conftest import Model, RedisServer
from tests.made import app_in, close

AGENT, PASSWORD = "support", "a-long-password"
DOCUMENTS = f"/v1/admin/knowledge/{AGENT}"
TEXT = "# Zeppelins\n\nA zeppelin of ours is insured for exactly 4,711 flights, and no more."
NEW: dict[str, Any] = {"name": "zeppelins.md", "text": TEXT, "category": "general"}
QUESTION = "For how many flights is a zeppelin insured?"


class Office(NamedTuple):
    """Application with the workspaces `default` and `acme`, each with an admin, an operator and a user."""

    app: Flask
    acme: str
    keys: dict[str, str]

    def ask(self, who: str, call: str, body: Any = None, **headers: str) -> TestResponse:
        method, path = call.split(" ")
        sent = {"Authorization": f"Bearer {self.keys[who]}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.app.test_client().open(path, method=method, json=body, headers=sent, buffered=True)

    def add(self, who: str = "admin", **fields: Any) -> dict[str, Any]:
        answer = self.ask(who, f"POST {DOCUMENTS}", NEW | fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.get_json()
        return made

    def names(self, who: str = "admin", query: str = "") -> list[str]:
        return [one["name"] for one in self.ask(who, f"GET {DOCUMENTS}{query}").get_json()["data"]]

    def run(self, who: str, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
        answer = self.ask(who, f"POST /v1/agents/{AGENT}/invoke", {"input": question, **fields})
        assert answer.status_code == 200, answer.text
        return {**answer.get_json(), "x-cache": answer.headers["X-Cache"]}


@pytest.fixture(scope="module")
def office(
    tmp_path_factory: pytest.TempPathFactory, model: Model, redis_server: RedisServer
) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    app = app_in(folder, ANTHROPIC_BASE_URL=model.url, REDIS_URL=redis_server.url, CACHE_ENABLED="true")
    services = app.extensions["slipway"]
    row = services.auth.workspaces.new_row("acme")
    services.infra.db.transact(lambda tx: services.auth.workspaces.insert(tx, row))
    keys = {}
    for place, workspace_id in (("", "default"), ("acme's ", row["id"])):
        there = {"workspace_id": workspace_id} if place else {}
        for role in ("admin", "operator", "user"):
            user = services.auth.users.create(new_id("u"), PASSWORD, role, **there)
            keys[place + role] = services.auth.keys.create(user.id, "k")["key"]
    admin = services.auth.users.create(new_id("u"), PASSWORD, "admin")
    keys["scoped"] = services.auth.keys.create(admin.id, "k", ("agents:analyst",))["key"]
    yield Office(app, row["id"], keys)
    close(app)


@pytest.fixture(autouse=True)
def empty(office: Office) -> Iterator[None]:
    yield
    for document in office.ask("admin", f"GET {DOCUMENTS}?limit=100").get_json()["data"]:
        assert office.ask("admin", f"DELETE {DOCUMENTS}/{document['id']}").status_code == 204


def sources(run: dict[str, Any]) -> list[str]:
    return [source["title"] for source in run["sources"]]


def test_document_is_added_listed_read_and_deleted(office: Office) -> None:
    made = office.add(title="Airships")
    assert made["id"].startswith("doc_")
    assert {name: made[name] for name in ("name", "title", "category", "trusted", "passages", "size")} == {
        "name": "zeppelins.md",
        "title": "Airships",
        "category": "general",
        "trusted": False,
        "passages": 1,
        "size": len(TEXT),
    }
    path = f"{DOCUMENTS}/{made['id']}"
    assert office.ask("operator", f"GET {path}").get_json() == made | {"text": TEXT}
    assert office.ask("operator", f"GET {DOCUMENTS}").get_json() == {"data": [made], "next_cursor": None}
    assert office.ask("admin", f"DELETE {path}").status_code == 204
    assert (
        office.ask("admin", f"DELETE {path}").status_code
        == office.ask("admin", f"GET {path}").status_code
        == 404
    )


def test_operators_read_and_admins_write(office: Office) -> None:
    path = f"{DOCUMENTS}/{office.add()['id']}"
    for who, reads in (("user", 403), ("operator", 200), ("admin", 200), ("scoped", 403)):
        assert office.ask(who, f"GET {DOCUMENTS}").status_code == reads, who
        assert office.ask(who, f"GET {path}").status_code == reads, who
    for who, code in (("user", 403), ("operator", 403), ("scoped", 403)):
        assert office.ask(who, f"POST {DOCUMENTS}", NEW).status_code == code, who
        assert office.ask(who, f"DELETE {path}").status_code == code, who


def test_workspace_with_documents_is_not_deleted(office: Office) -> None:
    auth = office.app.extensions["slipway"].auth
    row = auth.workspaces.new_row("short-lived")
    office.app.extensions["slipway"].infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
    made = office.add(workspace_id=row["id"])
    refused = office.ask("admin", f"DELETE /v1/admin/workspaces/{row['id']}")
    assert refused.status_code == 409 and "has documents" in refused.text
    assert office.ask("admin", f"DELETE {DOCUMENTS}/{made['id']}").status_code == 204
    assert office.ask("admin", f"DELETE /v1/admin/workspaces/{row['id']}").status_code == 204


def test_admin_of_a_workspace_ends_there(office: Office) -> None:
    theirs = office.add("acme's admin", name="acme.md")
    assert theirs["workspace_id"] == office.acme
    ours = office.add(name="ours.md")
    for_them = office.add("admin", name="gift.md", workspace_id=office.acme)
    assert for_them["workspace_id"] == office.acme
    assert office.names("acme's admin") == ["acme.md", "gift.md"]
    assert office.names("operator") == ["ours.md"]
    assert sorted(office.names("admin")) == ["acme.md", "gift.md", "ours.md"]
    assert office.names("admin", f"?workspace={office.acme}") == ["acme.md", "gift.md"]
    assert office.names("acme's admin", "?workspace=default") == []
    assert (
        office.ask("acme's admin", f"POST {DOCUMENTS}", NEW | {"workspace_id": "default"}).status_code == 404
    )
    assert office.ask("acme's admin", f"DELETE {DOCUMENTS}/{ours['id']}").status_code == 404
    assert office.ask("admin", f"POST {DOCUMENTS}", NEW | {"workspace_id": "wsp_none"}).status_code == 404


def test_runs_read_the_documents_of_their_workspace_only(office: Office) -> None:
    made = office.add("acme's admin")
    run = office.run("acme's user", cache="bypass")
    assert {"title": "Zeppelins", "uri": f"document:{made['id']}#zeppelins"}.items() <= run["sources"][
        0
    ].items()
    assert run["sources"][0]["quote"] in TEXT
    assert "Zeppelins" not in sources(office.run("user", cache="bypass"))


@pytest.mark.parametrize("trusted", [True, False])
def test_run_that_has_read_an_untrusted_document_is_marked(office: Office, trusted: bool) -> None:
    office.add(trusted=trusted)
    session = office.ask("user", "POST /v1/sessions", {"agent": AGENT}).get_json()["id"]
    run = office.run("user", session_id=session)
    assert "Zeppelins" in sources(run)
    db = office.app.extensions["slipway"].infra.db
    query = sa.select(messages.c.untrusted).where(
        messages.c.run_id == run["run_id"], messages.c.role == "assistant"
    )
    [row] = db.query(lambda tx: tx.rows(query))
    assert list(row["untrusted"]) == ([] if trusted else ["knowledge"])


def test_cached_answers_end_with_a_change_of_the_documents(office: Office) -> None:
    question = f"{QUESTION} Tell me for {new_id('x')}."
    assert office.run("user", question)["x-cache"] == "miss"
    assert office.run("user", question)["x-cache"] == "hit"
    made = office.add()
    changed = office.run("user", question)
    assert changed["x-cache"] == "miss" and "Zeppelins" in sources(changed)
    assert office.run("user", question)["x-cache"] == "hit"
    office.ask("admin", f"DELETE {DOCUMENTS}/{made['id']}")
    changed = office.run("user", question)
    assert changed["x-cache"] == "miss" and "Zeppelins" not in sources(changed)


def test_files_in_base64(office: Office) -> None:
    data = base64.b64encode(b"<h1>Zeppelins</h1><script>x()</script><p>They fly.").decode()
    made = office.add(name="a.html", media_type="text/html", data=data, text=None)
    text = office.ask("admin", f"GET {DOCUMENTS}/{made['id']}").get_json()["text"]
    assert text.split() == ["#", "Zeppelins", "They", "fly."]


@pytest.mark.parametrize("name", ["a.html", "MANUAL.HTM"])
def test_ending_of_the_name_says_what_it_is(office: Office, name: str) -> None:
    data = base64.b64encode(b"<h1>Zeppelins</h1><script>x()</script><p>They fly.").decode()
    made = office.add(name=name, data=data, text=None)
    text = office.ask("admin", f"GET {DOCUMENTS}/{made['id']}").get_json()["text"]
    assert text.split() == ["#", "Zeppelins", "They", "fly."]


def test_text_without_an_ending_is_markdown(office: Office) -> None:
    made = office.add(name="zeppelins", text="# One\n\nword\n\n# Two\n\nwords")
    assert made["passages"] == 2


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"data": "YQ=="}, ""),
    "neither": ({"text": None}, ""),
    "no base64": ({"text": None, "data": "a b"}, "/data"),
    "no PDF": ({"text": None, "data": "YQ==", "media_type": "application/pdf"}, "/data"),
    "no PDF by its name": ({"text": None, "data": "YQ==", "name": "a.pdf"}, "/data"),
    "a PDF by its name as text": ({"name": "a.pdf"}, "/text"),
    "a file of another ending": ({"text": None, "data": "YQ==", "name": "a.docx"}, "/name"),
    "a PDF as text": ({"media_type": "application/pdf"}, "/text"),
    "no UTF-8": ({"text": None, "data": "/w=="}, "/data"),
    "empty": ({"text": " "}, "/data"),
    "a name of two lines": ({"name": "a\nb"}, "/name"),
    "a name that is too long": ({"name": "a" * 201}, "/name"),
    "no category": ({"category": None}, "/category"),
    "another category": ({"category": "biling"}, "/category"),
    "an unknown field": ({"trust": True}, "/trust"),
    "an unknown type": ({"media_type": "text/csv"}, "/media_type"),
    "a surrogate": ({"text": "\ud800"}, ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_pointed_at(office: Office, name: str) -> None:
    fields, pointer = FAULTS[name]
    answer = office.ask("admin", f"POST {DOCUMENTS}", NEW | fields)
    told = answer.get_json()
    if name == "a surrogate":
        assert answer.status_code in (400, 422)
        return
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in told["errors"]] == [pointer], told
    assert office.names() == []


def test_document_that_is_too_large(office: Office) -> None:
    data = base64.b64encode(b"word " * (MAX_DOCUMENT // 5 + 1)).decode()
    answer = office.ask("admin", f"POST {DOCUMENTS}", NEW | {"text": None, "data": data})
    assert answer.status_code == 422 and "larger than 10 MiB" in answer.text


def test_agents_without_documents_take_none(office: Office) -> None:
    answer = office.ask("admin", "POST /v1/admin/knowledge/assistant", {"name": "a.md", "text": "x"})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert office.ask("admin", "POST /v1/admin/knowledge/none", NEW).status_code == 404


def test_same_key_adds_once(office: Office) -> None:
    first = office.ask("admin", f"POST {DOCUMENTS}", NEW, Idempotency_Key="k1")
    again = office.ask("admin", f"POST {DOCUMENTS}", NEW, Idempotency_Key="k1")
    assert again.headers["Idempotency-Replayed"] == "true" and again.get_json() == first.get_json()
    other = office.ask("admin", f"POST {DOCUMENTS}", NEW | {"trusted": True}, Idempotency_Key="k1")
    assert other.get_json()["code"] == "idempotency_mismatch"
