"""WebSockets whose run waits for a person, or whose server stops."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Model, RedisServer, slipway_server, wait_until
from tests.web.office import Office, office, slipway, text
from tests.web.sockets import LAST, QUICK, SLOW, bearer, chatting
from tests.web.test_doors import events_of

__all__ = ["office", "slipway", "text"]


def test_connection_goes_on_after_a_decision(office: Office, text: str) -> None:
    with chatting(office.slipway.url, bearer(office.admin), "clerk") as chat:
        chat.say(input=f'Call the write_line tool with "{text}".', cache="bypass")
        told = chat.until("approval.required")
        chat.say(**QUICK)
        assert chat.until("error")[-1]["data"]["code"] == "session_busy"
        assert office.decide(told[-1]["data"]["approval_id"], "approve").status_code == 200
        told += chat.until(*LAST)
        assert told[-1]["event"] == "run.completed" and office.written().count(text) == 1
        run_id = told[0]["data"]["run_id"]
        assert [event["id"] for event in told] == [each for each, _, _ in office.events(run_id)]
        assert chat.ask(**QUICK)["event"] == "run.completed"


def test_a_run_that_waits_is_cancelled(office: Office, text: str) -> None:
    with chatting(office.slipway.url, bearer(office.admin), "clerk") as chat:
        chat.say(input=f'Call the write_line tool with "{text}".', cache="bypass")
        chat.until("approval.required")
        chat.say(type="cancel")
        assert chat.until(*LAST)[-1]["event"] == "run.cancelled"
    assert office.written().count(text) == 0


def test_a_server_that_stops_sends_its_connections_elsewhere(
    office: Office, redis_server: RedisServer, model: Model, text: str
) -> None:
    home = Path(office.slipway.env["SLIPWAY_HOME"])  # a second replica, over the same database
    env = {name: office.slipway.env[name] for name in ("AGENTS_DIR",) if name in office.slipway.env}
    with slipway_server(
        home, redis_server.url, model.url, THREADS="32", GRACEFUL_TIMEOUT="10", **env
    ) as leaves:
        headers = bearer(office.admin)
        with (
            chatting(leaves.url, headers, "clerk") as idle,
            chatting(leaves.url, headers, "clerk") as busy,
            chatting(leaves.url, headers, "clerk") as waiting,
            chatting(leaves.url, {}, "clerk") as stranger,
        ):
            assert idle.ask(**QUICK)["event"] == "run.completed"
            busy.say(**SLOW)
            told = busy.until("text.delta")
            waiting.say(input=f'Call the write_line tool with "{text}".', cache="bypass")
            asked = waiting.until("approval.required")[-1]
            leaves.child.terminate()
            for chat in (idle, stranger):
                assert chat.code() == (1012, "This server stops; connect again.")
            for chat in (busy, waiting):
                last = chat.until(*LAST, "reconnect")[-1]
                assert last["event"] == "reconnect" and "id" not in last
                assert chat.code()[0] == 1012
            assert leaves.child.wait(20) == 0
    run_id = told[0]["data"]["run_id"]
    office.decide(asked["data"]["approval_id"], "deny")
    wait_until(lambda: office.admin.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded", "the end", 60)
    whole = events_of(office.admin.get(f"/v1/runs/{run_id}/events").text)
    assert whole[-1][1] == "run.completed"
