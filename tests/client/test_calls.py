"""Calls of both clients against a real server."""

from __future__ import annotations

import secrets
from decimal import Decimal

import anyio
import pytest
from slipway_client import (
    AsyncSlipway,
    BadArgument,
    InvalidError,
    Login,
    NotFoundError,
    PermissionDeniedError,
    Slipway,
    WaitTimedOut,
)

from tests import conftest as parts

LOGIN = ("demo", "demo-password")


def test_invoke_returns_the_typed_result(client: Slipway) -> None:
    result = client.agents.invoke("support", "Within how many days can I get a refund?")
    assert result.status == "succeeded" and "30 days" in result.output
    assert isinstance(result.usage.cost_usd, Decimal) and result.created_at.tzinfo is not None
    assert result.sources[0].title and result.raw["output"] == result.output


def test_a_conversation_is_kept_and_deleted(client: Slipway) -> None:
    session = client.sessions.create("assistant", title=secrets.token_hex(6))
    turn = client.agents.invoke("assistant", "My name is Ada.", session_id=session.id)
    said = client.sessions.get(session.id).messages
    assert [message.role for message in said] == ["user", "assistant"] and said[1].run_id == turn.run_id
    assert client.sessions.update(session.id, title="Names").title == "Names"
    assert [each.id for each in client.sessions.list(q="Names")] == [session.id]
    client.sessions.delete(session.id)
    with pytest.raises(NotFoundError) as absent:
        client.sessions.get(session.id)
    assert absent.value.code == "not_found" and absent.value.request_id


def test_lists_go_on_page_by_page(client: Slipway) -> None:
    made = {client.sessions.create("assistant", title=f"page {number}").id for number in range(103)}
    listed = [session.id for session in client.sessions.list(q="page")]
    assert len(listed) == len(set(listed)) == 103 and set(listed) == made


def test_a_task_is_awaited(client: Slipway) -> None:
    task = client.tasks.create("assistant", "Say hello.", metadata={"order": 4711})
    run = client.tasks.wait(task, timeout=60)
    assert (run.run_id, run.status, run.metadata) == (task.run_id, "succeeded", {"order": 4711})
    assert client.runs.get(task.run_id).step_list


def test_a_run_that_does_not_end_in_time_goes_on_and_can_be_cancelled(
    client: Slipway, model: parts.Model
) -> None:
    model.control(first_token_ms=60_000)
    task = client.tasks.create("assistant", "Wait.", cache="bypass")
    with pytest.raises(WaitTimedOut):
        client.tasks.wait(task, timeout=0.3)
    client.runs.cancel(task.run_id)
    run = client.tasks.wait(task, timeout=30)
    assert run.status == "cancelled"
    with pytest.raises(Exception, match="run_cancelled"):
        run.raise_for_error()


def test_the_same_key_is_the_same_run_and_each_call_has_its_own(client: Slipway) -> None:
    ask = lambda **more: client.agents.invoke("assistant", "Draft.", cache="bypass", **more).run_id  # noqa: E731
    key = secrets.token_hex(8)
    assert ask(idempotency_key=key) == ask(idempotency_key=key)
    assert ask() != ask()


def test_an_approval_is_listed_and_decided(client: Slipway) -> None:
    waits = client.agents.invoke("clerk", f'Call the write_line tool with "{secrets.token_hex(6)}".')
    assert waits.status == "waiting_approval" and waits.approvals
    [approval] = [each for each in client.approvals.list("pending") if each.run_id == waits.run_id]
    assert approval.id == waits.approvals[0] and approval.tool is not None
    with pytest.raises(Exception, match="digest_mismatch"):
        client.approvals.approve(approval.id, digest="sha256:" + "0" * 64)
    assert client.approvals.approve(approval.id, digest=approval.digest).status == "approved"
    assert client.tasks.wait(waits.run_id, timeout=30).status == "succeeded"
    with pytest.raises(Exception, match="already_decided"):
        client.approvals.deny(approval.id)


def test_usage_is_exact(client: Slipway) -> None:
    client.agents.invoke("assistant", secrets.token_hex(6))
    lines = list(client.usage.report("agent", "day"))
    assert all(isinstance(line.cost_usd, Decimal) and line.agent and line.day for line in lines)
    assert any(line.calls for line in lines) and list(client.usage.budget())


def test_feedback_replaces_the_earlier_one(client: Slipway) -> None:
    run = client.agents.invoke("assistant", secrets.token_hex(6), cache="bypass")
    client.runs.feedback(run.run_id, -1)
    assert client.runs.feedback(run.run_id, 1, "Kind.").comment == "Kind."
    feedback = client.runs.get(run.run_id).feedback
    assert feedback is not None and feedback.score == 1


def test_an_invalid_field_is_named(client: Slipway) -> None:
    with pytest.raises(InvalidError) as refused:
        client.agents.invoke("assistant", "?", effort="heroic")
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    assert refused.value.errors[0]["pointer"] == "/effort" and "/effort" in str(refused.value)


@pytest.mark.parametrize("bad", ["", ".", "..", "../admin", "a/b", "a?b", "a#b", "run_%2f", "ä", "a b"])
def test_an_id_leads_to_no_other_route(client: Slipway, bad: str) -> None:
    with pytest.raises(BadArgument):
        client.runs.get(bad)
    with pytest.raises(BadArgument):
        client.runs.events(bad)


def test_a_key_signs_in(client: Slipway, server: parts.Slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.client() as admin:
        body = {"name": "test", "scopes": ["agents:assistant"]}
        key = admin.post("/v1/auth/keys", json=body).json()["key"]
    monkeypatch.setenv("SLIPWAY_API_KEY", key)
    monkeypatch.setenv("SLIPWAY_BASE_URL", server.url + "/")
    with Slipway() as keyed:
        assert [agent.id for agent in keyed.agents.list()] == ["assistant"]
        with pytest.raises(PermissionDeniedError):
            keyed.account.logout()


@pytest.mark.parametrize(
    "options",
    [{}, {"api_key": "slp_1", "login": Login(*LOGIN)}, {"api_key": "slp_1\nx: y"}]
    + [
        {"api_key": "slp_1", "base_url": url}
        for url in ("localhost:8000", "ftp://a", "http://", "http://a?b")
    ],
)
def test_settings_that_cannot_work_are_refused(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLIPWAY_API_KEY", raising=False)
    with pytest.raises(BadArgument):
        Slipway(**options)  # type: ignore[arg-type]


def test_the_asynchronous_client_does_the_same(server: parts.Slipway) -> None:
    async def main() -> None:
        async with AsyncSlipway(login=Login(*LOGIN), base_url=server.url) as client:
            results: list[str] = []

            async def ask(number: int) -> None:
                answer = await client.agents.invoke("assistant", f"Number {number}?", cache="bypass")
                results.append(answer.status)

            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(ask, number)
            assert results == ["succeeded"] * 5
            assert "clerk" in [agent.id async for agent in client.agents.list()]
            task = await client.tasks.create("assistant", "Hello.")
            assert (await client.tasks.wait(task, timeout=60)).status == "succeeded"
            async with client.agents.stream("analyst", "What is 17% of 2340?", cache="bypass") as events:
                assert [event.type async for event in events][-1] == "run.completed"
                assert (await events.result()).output == events.text
            with pytest.raises(NotFoundError):
                await client.runs.get("run_none")

    anyio.run(main)
