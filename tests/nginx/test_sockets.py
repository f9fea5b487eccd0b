"""WebSockets through nginx, over the real service: turns, refusals, another replica where one is full or ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import wait_until
from tests.nginx.pair import Pair, pair_of
from tests.web.sockets import LAST, QUICK, SLOW, bearer, chatting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # two replicas start, on a busy machine in a minute


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Pair]:
    folder = scratch / f"pair-sockets-{request.param}"
    with pair_of(folder, request.param, WEB_CONCURRENCY="1", THREADS="12", HEARTBEAT_SECONDS="5") as pair:
        yield pair


@pytest.fixture
def client(pair: Pair) -> Iterator[httpx2.Client]:
    with closing(pair.one.client()) as client:
        yield client


def test_conversations_pass_through_nginx_and_over_a_deploy(pair: Pair, client: httpx2.Client) -> None:
    with chatting(pair.edge.url, bearer(client)) as chat:
        assert chat.ask(**QUICK)["event"] == chat.ask(**QUICK)["event"] == "run.completed"
    with pytest.raises(InvalidStatus) as info, chatting(pair.edge.url, {"x-api-key": "slp_" + "x" * 43}):
        pass
    assert info.value.response.status_code == 401
    plain = httpx2.get(f"{pair.edge.url}/v1/agents/assistant/chat", headers=bearer(client), trust_env=False)
    assert plain.status_code == 426 and plain.headers["Upgrade"] == "websocket"
    with ExitStack() as held:  # two fit on each replica
        chats = [held.enter_context(chatting(pair.edge.url, bearer(client))) for _ in range(4)]
        with pytest.raises(InvalidStatus) as info, chatting(pair.edge.url, bearer(client)):
            pass
        assert info.value.response.status_code in (429, 503)
        for chat in chats:
            chat.say(**SLOW)
        for chat in chats:
            chat.until("text.delta")
        pair.one.child.send_signal(signal.SIGTERM)
        left = [chat for chat in chats if chat.until(*LAST, "reconnect")[-1]["event"] == "reconnect"]
        assert len(left) == 2 and all(chat.code()[0] == 1012 for chat in left)
        runs = httpx2.get(f"{pair.two.url}/v1/runs", headers=bearer(client), trust_env=False).json()["data"]
        slow = [run["run_id"] for run in runs if run["input"] == SLOW["input"]]
        assert len(slow) == 4
    with pair.client(pair.two.url, client) as there:
        for run_id in slow:
            wait_until(
                lambda: there.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded",  # noqa: B023
                "the end of a run",
                90,
            )
        with chatting(pair.edge.url, bearer(client)) as chat:
            assert chat.ask(**QUICK)["event"] == "run.completed"
    [line, *_] = [
        line for line in pair.edge.log() if line["path"].endswith("/chat") and line["status"] == 101
    ]
    assert line["method"] == "GET"
