"""Bounds of WebSockets: seats, broken frames, floods, clients that do not read, answer or end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.sockets import QUICK, SLOW, Plain, bearer, chatting, frame, path_of

SEATS, EACH, STRANGERS = 7, 3, 1  # of a worker with 32 threads, and 28 places
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HELLO = json.dumps(QUICK).encode()


@pytest.fixture(scope="module")
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    settings = {"THREADS": "32", "SOCKET_IDLE_SECONDS": "60"}
    with slipway_server(scratch / "sockets", redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture
def user(house: Slipway) -> Iterator[httpx2.Client]:
    with closing(house.client()) as client:
        yield client
        wait_until(lambda: open_sockets(house) == 0, "the end of all connections", 20)


@pytest.fixture
def plain(house: Slipway, user: httpx2.Client) -> Iterator[Plain]:
    with closing(Plain(house, bearer(user))) as opened:
        assert opened.status == 101
        yield opened


def open_sockets(server: Slipway) -> float:
    lines = httpx2.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("slipway_websockets"))


def refused(server: Slipway, headers: dict[str, str]) -> httpx2.Headers:
    """Headers of the answer to a handshake that must be refused, with its status and code."""
    with pytest.raises(InvalidStatus) as info, chatting(server.url, headers):
        pass
    answer = info.value.response
    told = {"status": str(answer.status_code), "code": json.loads(answer.body)["code"]}
    return httpx2.Headers({**dict(answer.headers.raw_items()), **told})


def others(user: httpx2.Client, house: Slipway, count: int) -> list[dict[str, str]]:
    """Sign-ins of other users."""
    found = []
    for number in range(count):
        name = {"username": f"seat-{number}", "password": "a long password"}
        user.post("/v1/admin/users", json={**name, "role": "user"})
        with closing(house.client(**name)) as other:
            found.append(bearer(other))
    return found


def test_seats_are_bounded_and_http_keeps_its_threads(house: Slipway, user: httpx2.Client) -> None:
    with ExitStack() as held:
        chats = [held.enter_context(chatting(house.url, bearer(user))) for _ in range(EACH)]
        own = refused(house, bearer(user))
        assert (own["status"], own["code"]) == ("429", "rate_limited") and int(own["Retry-After"]) >= 1
        for number, headers in enumerate(others(user, house, 2)):
            many = EACH if number == 0 else SEATS - 2 * EACH
            chats += [held.enter_context(chatting(house.url, headers)) for _ in range(many)]
            last = headers
        held.enter_context(chatting(house.url, {}))
        for headers in (last, {}):
            full = refused(house, headers)
            assert (full["status"], full["code"]) == ("503", "overloaded") and int(full["Retry-After"]) >= 1
        assert open_sockets(house) == SEATS + STRANGERS
        for chat in chats:
            chat.say(**SLOW, on_disconnect="cancel")
        for chat in chats:
            chat.until("text.delta")
        assert user.get("/health").status_code == 200
        answers: list[int] = []

        def ask() -> None:
            answers.append(user.post("/v1/agents/assistant/invoke", json=QUICK).status_code)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 5
    wait_until(lambda: open_sockets(house) == 0, "free seats", 20)
    with chatting(house.url, bearer(user)) as chat:
        assert chat.ask(**QUICK)["event"] == "run.completed"


def sends(*frames: bytes) -> Callable[[Plain], None]:
    return lambda opened: opened.sock.sendall(b"".join(frames))


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (sends(frame(TEXT, HELLO, mask=False)), 1002),
        (sends(frame(TEXT, HELLO, rsv=4)), 1002),
        (sends(frame(3, b"x")), 1002),
        (sends(frame(0, b"x")), 1002),
        (sends(frame(TEXT, b"{", fin=False), frame(TEXT, b"}")), 1002),
        (sends(frame(PING, b"x" * 126)), 1002),
        (sends(frame(PING, b"x", fin=False)), 1002),
        (sends(frame(CLOSE, b"\x03")), 1002),
        (sends(frame(CLOSE, b"\x00\x01")), 1002),
        (sends(frame(BINARY, HELLO)), 1003),
        (sends(frame(TEXT, b'{"input": "\xff"}')), 1007),
        (sends(frame(TEXT, b"\xf0\x9f", fin=False), frame(0, b"x")), 1007),
        (sends(b"\x81\xff" + b"\x7f" + b"\xff" * 7 + bytes(4)), 1009),
        (sends(b"\x81\xff" + (1024 * 1024 + 1).to_bytes(8, "big") + bytes(4)), 1009),
        (sends(*[frame(int(n == 0), b" " * 65_536, fin=False) for n in range(17)]), 1009),
        (sends(*[frame(PING)] * 2_500), 1008),
        (sends(*[frame(int(n == 0), b"", fin=False) for n in range(2_500)]), 1008),
        (sends(*[frame(TEXT, b"{")] * 40), 1008),
        (sends(*[frame(TEXT, b'{"type": "cancel"}')] * 40), 1008),
        (sends(frame(CLOSE, b"\x03\xe8")), 1000),
    ],
)
def test_broken_frames_and_floods_end_the_connection(
    plain: Plain, send: Callable[[Plain], None], code: int
) -> None:
    with suppress(ConnectionError):
        send(plain)
    assert plain.code() == code


def test_control_frames_are_answered_amid_fragments(plain: Plain) -> None:
    plain.send(TEXT, HELLO[:9], fin=False)
    plain.send(PING, b"there?")
    assert plain.frame() == (PONG, b"there?")
    plain.send(PONG, b"not asked for")
    plain.send(0, HELLO[9:])
    opcode, payload = plain.frame()
    while opcode != TEXT:
        opcode, payload = plain.frame()
    assert json.loads(payload)["event"] == "run.started"


def test_bytes_that_come_one_by_one_are_a_message(plain: Plain) -> None:
    for byte in frame(TEXT, HELLO):
        plain.sock.sendall(bytes([byte]))
    opcode, payload = plain.frame()
    while opcode != TEXT:
        opcode, payload = plain.frame()
    assert json.loads(payload)["event"] == "run.started"


def test_a_client_that_answers_no_ping_is_left(plain: Plain) -> None:
    opcode, _ = plain.frame()
    assert opcode == PING
    assert plain.code() == 1011


def test_a_half_open_connection_gives_its_seat_back(house: Slipway, user: httpx2.Client) -> None:
    for end in (lambda sock: sock.shutdown(socket.SHUT_WR), lambda sock: sock.close()):
        opened = Plain(house, bearer(user))
        opened.send(TEXT, json.dumps({**SLOW, "on_disconnect": "cancel"}).encode())
        end(opened.sock)
        wait_until(lambda: open_sockets(house) == 0, "a free seat", 20)
        opened.close()


def test_a_stranger_sends_little(house: Slipway, user: httpx2.Client) -> None:
    with closing(Plain(house, {})) as opened:
        opened.send(TEXT, b" " * 20_000)
        assert opened.code() == 1009


def test_nothing_after_a_handshake_is_a_request(house: Slipway, user: httpx2.Client) -> None:
    """A request that follows in the same packet, as in smuggling, is answered with no byte of HTTP."""
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    for version in ("13", "12"):
        opened = Plain.__new__(Plain)
        opened.sock, opened.data = socket.create_connection(("127.0.0.1", house.port), timeout=30), b""
        head = (
            f"GET {path_of()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Authorization: {bearer(user)['Authorization']}\r\n\r\n"
        )
        opened.sock.sendall(head.encode() + health)
        time.sleep(0.2)
        with suppress(OSError):
            opened.sock.sendall(frame(CLOSE, b"\x03\xe8"))
        data = b""
        with suppress(ConnectionError):
            while more := opened.sock.recv(65_536):
                data += more
        assert data.count(b"HTTP/1.1 ") == 1
        opened.close()


def test_a_slow_reader_does_not_hold_up_its_run(house: Slipway, user: httpx2.Client) -> None:
    with closing(Plain(house, bearer(user), read_buffer=4096)) as opened:
        wish = {"input": "[offline tokens=20000] Much, please.", "cache": "bypass", "session_id": None}
        opened.send(TEXT, json.dumps(wish).encode())
        opcode, payload = opened.frame()
        while opcode != TEXT:
            opcode, payload = opened.frame()
        run_id = json.loads(payload)["data"]["run_id"]
        wait_until(lambda: user.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded", "the end", 60)
        while True:  # and gets all of it in the end
            opcode, payload = opened.frame()
            if opcode == PING:
                opened.send(PONG, payload)
            elif json.loads(payload)["event"] == "run.completed":
                break
