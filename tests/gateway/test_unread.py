"""Clients of a stream that stop reading: they keep neither the thread, nor the hold, nor the run."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest

from service.infra.redis_trip import Trip
from service.llm.relay import RelayedRequest
from service.runs import gateway_watch
from service.runs.gateway_call import Relayed
from service.runs.relay_start import Relay
from service.runs.relayed_call import RelayedCall
from service.store.schema import holds, runs
from service.web.anthropic.relayed_body import run_request
from tests.conftest import RedisServer, Slipway, slipway_server, wait_until
from tests.examples.slipway_house import selected
from tests.gateway import house
from tests.gateway.house import MODEL, Gateway
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.messages_api.asked import says
from tests.messages_api.server import MessagesApi
from tests.remote.house import SUCCEEDED, spec
from tests.runs import inside

LONG = says("A long answer. " * 200_000)  # more than the buffers between two sockets hold
STREAM = {
    "model": MODEL,
    "max_tokens": 60_000,
    "stream": True,
    "messages": [{"role": "user", "content": "Hi"}],
}
ESTABLISHED = "01"


def write_all(relayed: Relayed | Relay, near: socket.socket, ended: threading.Event) -> None:
    """Write an answer to a socket, as a server's thread does."""
    with suppress(OSError):
        for piece in relayed.pieces:
            near.sendall(piece)
    relayed.close()
    ended.set()


REQUEST = RelayedRequest(
    model=MODEL,
    messages=STREAM["messages"],  # type: ignore[arg-type]
    max_tokens=60_000,
    stream=True,
    body=json.dumps(STREAM).encode(),
)


def relayed_to(gateway: Gateway, near: socket.socket, token: str) -> Relayed:
    grant = gateway.services.auth.run_tokens.find(token)
    return gateway.services.runs.gateway.relay(grant, REQUEST, lambda: near.shutdown(socket.SHUT_RDWR))


@pytest.mark.parametrize("why", ["unread", "ended"])
def test_writer_to_a_client_that_reads_nothing_wakes_up_and_is_settled(
    tmp_path: Path, redis_server: RedisServer, url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "unread":
        monkeypatch.setattr(gateway_watch, "UNREAD_SECONDS", 0.3)
    with house.gateway(tmp_path, redis_server.url, lambda asked: LONG, database_url=url) as gateway:
        near, far = socket.socketpair()
        with closing(near), closing(far):
            token = gateway.token(gateway.run())
            relayed, ended = relayed_to(gateway, near, token), threading.Event()
            threading.Thread(target=write_all, args=(relayed, near, ended), daemon=True).start()
            if why == "ended":
                gateway.services.auth.run_tokens.end(token)
            assert ended.wait(20)
        assert gateway.held == 0 and gateway.spent > 0
        [row] = gateway.rows()
        assert (row["state"], row["answer"]) == ("failed", None)


def test_stream_under_a_key_that_nobody_reads_ends_its_run(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_watch, "UNREAD_SECONDS", 0.3)
    with house.gateway(tmp_path, redis_server.url, lambda asked: LONG) as gateway:
        near, far = socket.socketpair()
        with closing(near), closing(far):
            relayed, ended = RelayedCall(REQUEST, lambda: near.shutdown(socket.SHUT_RDWR)), threading.Event()
            trip = Trip(gateway.services.infra.redis_store)
            asked = run_request(MODEL, REQUEST)
            relay = gateway.services.runs.relays.relay(inside.ADA, asked, None, "req", trip, relayed)
            threading.Thread(target=write_all, args=(relay, near, ended), daemon=True).start()
            assert ended.wait(20)
        assert gateway.held == 0 and gateway.spent > 0
        assert [row["status"] for row in gateway.rows(runs)] == ["cancelled"]


class NeverReads:
    """Remote agent that opens streams at the gateway and reads nothing of them, until it is told to answer."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.opened, self.answers = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        if b"/cancel" in exchange.head.partition(b"\r\n")[0]:
            whole({})(exchange)
            return
        host, _, port = exchange.json["base_url"].removeprefix("http://").partition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect((host, int(port)))
        body = json.dumps(STREAM)
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {exchange.json['run_token']}\r\n"
        sock.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.sockets.append(sock)
        sock.recv(1)
        self.opened.set()
        self.answers.wait(30)
        with suppress(OSError):
            whole(SUCCEEDED)(exchange)


def state_of(server: Slipway, sock: socket.socket) -> str:
    """Return the kernel's state of the server's end of a connection; empty: there is none."""
    ports = f":{server.port:04X}", f":{sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if (local[-5:], remote[-5:]) == ports:
            return state
    return ""


def begin(client: httpx2.Client) -> str:
    """Begin a run, whose client leaves at once; return its id."""
    with client.stream("POST", "/v1/agents/probe/stream", json={"input": "Go."}) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("id: "))
        return next(lines).removeprefix("id: ").partition(":")[0]


@pytest.fixture
def agent() -> Iterator[NeverReads]:
    made = NeverReads()
    yield made
    made.answers.set()
    for sock in made.sockets:
        sock.close()


@pytest.mark.parametrize("end", ["cancelled", "succeeded"])
def test_end_of_the_run_frees_the_thread_of_a_worker(
    tmp_path: Path, redis_server: RedisServer, url: str, agent: NeverReads, end: str
) -> None:
    api, service = MessagesApi(lambda asked: LONG), WireServer(agent)
    probe = tmp_path / "agents" / "probe"
    probe.mkdir(parents=True)
    (probe / "agent.yaml").write_text(spec(service.url, silence_seconds=60))
    (probe / "prompt.md").write_text("Be good.")
    own = {"AGENTS_DIR": str(probe.parent), "REMOTE_HOSTS": service.url.removeprefix("http://")}
    own |= {"DATABASE_URL": url.replace("postgresql+psycopg:", "postgresql:")}
    with closing(api), slipway_server(tmp_path, redis_server.url, api.url, **own) as server:
        with server.client() as client:
            run_id = begin(client)
            assert agent.opened.wait(20)
            [sock] = agent.sockets
            time.sleep(0.5)  # the buffers fill
            assert state_of(server, sock) == ESTABLISHED
            if end == "cancelled":
                client.post(f"/v1/runs/{run_id}/cancel")
            else:
                agent.answers.set()
            path = f"/v1/runs/{run_id}"
            run = wait_until(lambda: run if (run := client.get(path).json())["status"] == end else None, end)
        wait_until(lambda: state_of(server, sock) != ESTABLISHED, "the end of the connection")
        assert selected(url, holds) == []
        assert run["usage"]["cost_usd"] != "0.000000"
    service.stop()
