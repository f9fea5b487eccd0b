"""`/v1/admin/audit`: lists, JSON lines, verification, and who may read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask

from service.audit.chain import link_all
from service.audit.record import Action, record
from service.errors import Overloaded
from service.runs.bulkhead import Permit
from service.store.actor import Actor, acting_as
from service.types import Caller
from service.wiring import Services
from tests.audit.house import tamper
from tests.made import app_in, close
from tests.rules.world import PASSWORD

OTHER = "wsp_" + "1" * 26
PATH = "/v1/admin/audit"


class Office:
    """Application whose audit has rows of two workspaces; an admin of the service, an operator, a user."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.services: Services = app.extensions["slipway"]
        self.db = self.services.infra.db
        roles: dict[str, Any] = {"root": "admin", "olga": "operator", "ada": "user"}
        self.users = {
            name: self.services.auth.users.create(name, PASSWORD, role) for name, role in roles.items()
        }
        self.tokens = {
            name: self.services.auth.tokens.begin(user).public()["access_token"]
            for name, user in self.users.items()
        }
        with acting_as(Actor("user", "usr_else", workspace_id=OTHER)):
            for number in range(3):
                key = f"key:key_{number}"
                self.db.transact(lambda tx, key=key: record(tx, Action.KEY_CREATED, key))
        link_all(self.db)

    def get(self, who: str, path: str, status: int = 200, **headers: str) -> Any:
        headers["Authorization"] = f"Bearer {self.tokens[who]}"
        with self.app.test_client().get(path, headers=headers, buffered=True) as answer:
            assert answer.status_code == status, answer.text
            return answer if status == 200 and "Accept" in headers else answer.get_json()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    app = app_in(tmp_path)
    yield Office(app)
    close(app)


def test_operators_read_their_workspace_and_admins_of_the_service_any(office: Office) -> None:
    own = office.get("olga", PATH)["data"]
    assert own == office.get("root", PATH)["data"]
    assert [row["action"] for row in own] == ["sign_in"] * 3 + ["user.created"] * 4
    assert [row["id"] for row in own] == sorted((row["id"] for row in own), reverse=True)
    theirs = office.get("root", f"{PATH}?workspace={OTHER}")["data"]
    assert [row["subject"] for row in theirs] == ["key:key_2", "key:key_1", "key:key_0"]
    assert office.get("root", f"{PATH}/verify?workspace={OTHER}")["checked"] == 3
    for path in (f"{PATH}?workspace={OTHER}", f"{PATH}/verify?workspace={OTHER}"):
        assert OTHER not in str(office.get("olga", path, 404)["detail"])
    for path in (f"{PATH}?workspace=acme", f"{PATH}/verify?workspace=wsp_none"):
        office.get("root", path, 404)  # a wrong name is no proof of a whole audit
    office.get("ada", PATH, 403)
    office.get("ada", f"{PATH}/verify", 403)


def test_list_is_filtered_and_paged(office: Office) -> None:
    ada = office.users["ada"].id
    of_ada = office.get("olga", f"{PATH}?subject=user:{ada}")["data"]
    assert {row["subject"] for row in of_ada} == {f"user:{ada}"} and len(of_ada) == 2
    assert [row["action"] for row in office.get("olga", f"{PATH}?action=user.created")["data"]] == [
        "user.created"
    ] * 4
    office.get("ada", PATH, 403)
    assert len(office.get("olga", f"{PATH}?user={ada}")["data"]) == 1
    first = office.get("olga", f"{PATH}?limit=5")
    second = office.get("olga", f"{PATH}?limit=5&cursor={first['next_cursor']}")
    assert len(first["data"]) == 5 and second["next_cursor"] is None
    assert not {row["id"] for row in first["data"]} & {row["id"] for row in second["data"]}
    assert office.get("olga", f"{PATH}?to=2020-01-01")["data"] == []
    assert len(office.get("olga", f"{PATH}?from=2020-01-01&to=2120-01-01")["data"]) == 8
    for query in ("action=sign_in&user=usr_1", "action=none", "from=yesterday", "colour=red", "limit=0"):
        office.get("olga", f"{PATH}?{query}", 422)


def test_lines_have_their_next_page_in_link(office: Office) -> None:
    answer = office.get("olga", f"{PATH}?limit=5", Accept="application/x-ndjson")
    lines = [orjson.loads(line) for line in answer.data.splitlines()]
    assert (answer.mimetype, len(lines)) == ("application/x-ndjson", 5)
    assert lines == office.get("olga", f"{PATH}?limit=5")["data"]
    assert answer.headers["Link"] == f'<{PATH}?limit=5&cursor={lines[-1]["id"]}>; rel="next"'


def test_verification_names_the_row_and_goes_on_after_a_link(office: Office) -> None:
    found = office.get("olga", f"{PATH}/verify")
    head = found.pop("head")
    assert found == {
        "ok": True,
        "workspace_id": Caller("", "", "user").workspace_id,
        "checked": 7,
        "unlinked": 0,
        "first_fault": None,
        "partial": False,
    }
    assert head["seq"] == 7
    (row,) = office.get("olga", f"{PATH}?subject=user:{office.users['olga'].id}&limit=1")["data"]
    tamper(office.db, f"UPDATE audit SET result = 'refused' WHERE id = '{row['id']}'")
    fault = office.get("olga", f"{PATH}/verify")["first_fault"]
    assert (fault["audit_id"], fault["fault"]) == (row["id"], "changed")
    assert office.get("olga", f"{PATH}/verify?after_seq={fault['seq']}")["ok"]
    for query in ("after_seq=-1", "after_seq=x", "after_seq=" + "9" * 30, "limit=5"):
        office.get("olga", f"{PATH}/verify?{query}", 422)


def test_reading_is_no_refused_change(office: Office) -> None:
    for method in ("get", "head"):
        headers = {"Authorization": f"Bearer {office.tokens['root']}"}
        answer = getattr(office.app.test_client(), method)("/v1/admin/users/usr_none", headers=headers)
        assert answer.status_code == 404
    assert office.get("root", f"{PATH}?action={Action.CHANGE_REFUSED}")["data"] == []


def test_verification_needs_a_place(office: Office) -> None:
    bulkhead, places = office.services.runs.bulkhead, list[Permit]()
    with pytest.raises(Overloaded):
        while True:
            places.append(bulkhead.take(f"usr_{len(places)}", reads=True))
    assert office.get("olga", f"{PATH}/verify", 503)["code"] == "overloaded"
    places.pop().give()
    assert office.get("olga", f"{PATH}/verify")["ok"]
    assert bulkhead.taken == len(places)
