"""End users: whom a caller asks for, from the body of a run to the usage report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from service.store.usage import DAY_MS
from service.usage import reports
from service.usage.ledger import check
from service.usage.rollup import roll_up
from tests.conftest import Model
from tests.made import app_in, close
from tests.usage.calls import TODAY, Call, book
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
QUESTION = {"input": "How do I get a refund?", "cache": "bypass"}


@pytest.fixture
def app(tmp_path: Path, url: str, model: Model) -> Iterator[Flask]:
    model.reset()
    made = app_in(tmp_path, DATABASE_URL=url, ANTHROPIC_BASE_URL=model.url)
    yield made
    close(made)


def test_usage_is_told_by_end_user(app: Flask) -> None:
    services, client = app.extensions["slipway"], app.test_client()
    user = services.auth.users.by_name("demo")
    headers = {"X-Api-Key": services.auth.keys.create(user.id, "k")["key"], "Accept": "application/json"}

    def post(door: str, end_user: str | None) -> Any:
        body = QUESTION if end_user is None else {**QUESTION, "end_user": end_user}
        answer = client.post(f"/v1/agents/support/{door}", json=body, headers=headers, buffered=True)
        assert answer.status_code // 100 == 2, answer.text
        return answer

    for end_user in ("zoë / 7", "zoë / 7", "adam", None):
        post("invoke", end_user)
    queued = post("tasks", "adam").get_json()["run_id"]
    services.runs.execution.take_up(queued)
    assert services.runs.queries.get(queued).request.end_user == "adam"
    assert not check(services.infra.db, services.usage.prices).faults
    book(services.infra.db, [Call((TODAY - 2) * DAY_MS, user.id)])  # of a day that is closed
    roll_up(services.infra.db)
    report = client.get("/v1/usage?group_by=end_user,key", headers=headers, buffered=True).get_json()
    calls = {line["end_user"]: line["calls"] for line in report["data"]}
    assert set(calls) == {"zoë / 7", "adam", None} and calls["zoë / 7"] == calls["adam"] >= 2
    assert sum(line["calls"] for line in report["data"]) == report["total"]["calls"]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\x00", "\ud800", 7])
def test_name_that_does_not_fit_is_422(app: Flask, name: Any) -> None:
    client = app.test_client()
    key = app.extensions["slipway"].auth.keys.create(
        app.extensions["slipway"].auth.users.by_name("demo").id, "k"
    )["key"]
    for door in ("invoke", "stream", "tasks"):
        answer = client.post(
            f"/v1/agents/support/{door}",
            json={**QUESTION, "end_user": name},
            headers={"X-Api-Key": key},
            buffered=True,
        )
        assert answer.status_code in (400, 422), answer.text
    since = reports.day_of(TODAY - 40)
    asked = client.get(f"/v1/usage?group_by=end_user&from={since}", headers={"X-Api-Key": key})
    assert asked.status_code == 422
