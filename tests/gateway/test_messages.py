"""Model calls with the token of a run, by the official SDK and by hand."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
import sqlalchemy as sa

from service.store import runs as run_rows
from service.store.actor import Actor, current_actor
from service.store.schema import users
from service.types import Event, RunStatus
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.tables import ON_SQLITE

ASKED: list[Any] = [{"role": "user", "content": "Hello"}]


def test_answer_is_the_models_and_paid_by_the_run(gateway: Gateway) -> None:
    run = gateway.run()
    answer = gateway.sdk(gateway.token(run)).messages.create(model=MODEL, max_tokens=50, messages=ASKED)
    assert answer.content[0].text == "Answer 5." and answer.stop_reason == "end_turn"  # type: ignore[union-attr]
    [row] = gateway.rows()
    assert (row["state"], row["run_id"], row["cost_nano"]) == ("done", run.id, gateway.spent)
    assert gateway.spent > 0 and gateway.held == 0


def test_stream_brings_the_same(gateway: Gateway) -> None:
    run = gateway.run()
    with gateway.sdk(gateway.token(run)).messages.stream(
        model=MODEL, max_tokens=50, messages=ASKED
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "Answer 5." and final.usage.output_tokens > 0
    [row] = gateway.rows()
    assert (row["state"], row["cost_nano"]) == ("done", gateway.spent) and gateway.held == 0


def test_unknown_fields_and_betas_reach_the_model_unchanged(gateway: Gateway) -> None:
    body = {**HELLO, "metadata": {"user_id": "me"}, "thinking": {"type": "adaptive"}}
    headers = {"anthropic-beta": "some-beta-2026-01-01"}
    answer = gateway.post(gateway.token(gateway.run()), {**body, "temperature": 0.5}, **headers)
    assert answer.status_code == 200 and answer.headers["request-id"]
    assert gateway.api.requests[-1].body == body  # without what the models take no longer
    assert answer.headers["X-Cost-USD"] != "0.000000"


@pytest.mark.parametrize(
    "state", ["another run", "ended", "cancelled", "next attempt", "made up", "disabled"]
)
def test_token_that_is_not_valid_is_401(gateway: Gateway, state: str) -> None:
    run = gateway.run()
    token = gateway.token(run)
    db = gateway.services.infra.db
    if state == "ended":
        attempt = gateway.attempt(run)
        attempt.journal.finish(RunStatus.SUCCEEDED, lambda: (Event.RUN_COMPLETED, {}))
    elif state == "cancelled":
        db.transact(lambda tx: run_rows.ask_cancel(tx, run.id))
    elif state == "next attempt":
        gateway.again(run)
    elif state == "disabled":
        db.transact(lambda tx: tx.execute(sa.update(users).values(disabled=True)))
    else:
        token = "slr_" + "0" * 48 if state == "made up" else token + "0"
    with pytest.raises(anthropic.AuthenticationError):
        gateway.sdk(token).messages.create(model=MODEL, max_tokens=50, messages=ASKED)
    assert gateway.rows() == [] and gateway.api.requests == []


def test_token_is_good_for_model_calls_only(gateway: Gateway) -> None:
    token = gateway.token(gateway.run())
    assert gateway.post(token, {"input": "Hi"}, "/v1/agents/probe/invoke").status_code == 401


@ON_SQLITE
@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"model": "claude-unknown"}, 404, "not_found_error"),
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": "Hello"}, 400, "invalid_request_error"),
        ({"speed": "fast"}, 400, "invalid_request_error"),
        ({"service_tier": "priority"}, 400, "invalid_request_error"),
        ({"mcp_servers": [{"type": "url"}]}, 400, "invalid_request_error"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, 400, "invalid_request_error"),
    ],
)
def test_request_that_cannot_be_priced_or_read_is_refused(
    gateway: Gateway, change: dict[str, Any], status: int, kind: str
) -> None:
    answer = gateway.post(gateway.token(gateway.run()), {**HELLO, **change})
    told = answer.json()
    assert (answer.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert told["request_id"] == answer.headers["request-id"]
    assert gateway.rows() == [] and gateway.api.requests == [] and gateway.held == 0


def test_tokens_are_counted_without_a_hold(gateway: Gateway) -> None:
    token = gateway.token(gateway.run())
    counted = gateway.sdk(token).messages.count_tokens(model=MODEL, messages=ASKED)
    assert counted.input_tokens > 0 and gateway.rows() == []


def test_calls_of_a_run_are_bounded(gateway: Gateway) -> None:
    token = gateway.token(gateway.run(), most_calls=2)
    codes = [gateway.post(token).status_code for _ in range(3)]
    assert codes == [200, 200, 403]


def test_call_acts_as_the_user_of_the_run(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    token, actors = gateway.token(gateway.run()), set[object]()
    db = gateway.services.infra.db
    transact = db.transact

    def noted(work: Any, **options: Any) -> Any:
        actors.add(current_actor()._replace(family=None, role=None))
        return transact(work, **options)

    monkeypatch.setattr(db, "transact", noted)
    assert gateway.post(token).status_code == 200
    assert actors == {Actor("user", "usr_ada")}
