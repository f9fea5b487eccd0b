"""Sign-in of a WebSocket: by header or first message, never by cookie; log-ins and keys that end meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.web.sockets import LAST, QUICK, SLOW, bearer, chatting, path_of

MADE_UP = {"Authorization": "Bearer slp_" + "x" * 43}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module")
def strict(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """Tokens are refused after 4, and idle connections closed after 2 seconds; one other site is allowed."""
    settings = {
        "THREADS": "64",
        "SOCKET_IDLE_SECONDS": "2",
        "CORS_ORIGINS": "https://app.example.com",
        "LIMIT_REFUSED": "5/hour",
    }
    with slipway_server(scratch / "strict", redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture
def user(strict: Slipway) -> Iterator[httpx2.Client]:
    with closing(strict.client()) as client:
        yield client


def key_of(client: httpx2.Client, **more: object) -> dict[str, str]:
    made: dict[str, str] = client.post("/v1/auth/keys", json={"name": "socket", **more}).json()
    return made


def status_of(server: Slipway, headers: dict[str, str], agent: str = "assistant") -> int:
    try:
        with chatting(server.url, headers, agent):
            return 101
    except InvalidStatus as refused:
        return int(refused.response.status_code)


def test_credentials_come_in_a_header(slipway: Slipway, client: httpx2.Client) -> None:
    key = key_of(client)["key"]
    assert status_of(slipway, bearer(client)) == 101
    assert status_of(slipway, {"x-api-key": key}) == 101
    assert status_of(slipway, MADE_UP) == 401
    assert status_of(slipway, bearer(client), "nobody") == 404
    of_others = key_of(client, scopes=["agents:support"])["key"]
    assert status_of(slipway, {"x-api-key": of_others}) == 404
    reads = key_of(client, scopes=["actions:runs:read"])["key"]
    assert status_of(slipway, {"x-api-key": reads}) == 403


def test_or_in_the_first_message(slipway: Slipway, client: httpx2.Client) -> None:
    for token in (client.headers["Authorization"].removeprefix("Bearer "), key_of(client)["key"]):
        with chatting(slipway.url, {}) as chat:
            chat.say(token=token)
            assert chat.ask(**QUICK)["event"] == "run.completed"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"token": MADE_UP["Authorization"].removeprefix("Bearer ")}, 4401),
        ({"token": "eyJhbGciOiJub25lIn0.e30."}, 4401),
        ({"token": "naïve"}, 4422),
        ({"token": 7}, 4422),
        ({"input": "Hello"}, 4422),
    ],
)
def test_a_wrong_first_message_ends_the_connection(
    slipway: Slipway, message: dict[str, object], code: int
) -> None:
    with chatting(slipway.url, {}) as chat:
        chat.say(**message)
        told = chat.next()
        assert told["event"] == "error" and told["data"]["status"] == code - 4000
        assert chat.code()[0] == code


def test_made_up_tokens_are_counted_by_address(strict: Slipway) -> None:
    codes = []
    for _ in range(7):
        with chatting(strict.url, {}) as chat:
            chat.say(token=MADE_UP["Authorization"].removeprefix("Bearer "))
            codes.append(chat.code()[0])
    assert codes == [4401] * 5 + [4429] * 2


def test_nobody_waits_long_for_a_token_or_a_turn(strict: Slipway, user: httpx2.Client) -> None:
    with chatting(strict.url, {}) as chat:
        assert chat.code() == (4401, "unauthenticated")
    with chatting(strict.url, bearer(user)) as chat:
        assert chat.ask(**QUICK)["event"] == "run.completed"
        assert chat.code() == (4408, "Idle.")


def test_no_cookie_and_no_address_signs_in(slipway: Slipway, client: httpx2.Client) -> None:
    pair = {"username": "demo", "password": "demo-password"}
    page = client.post("/page/sign-in", json=pair, headers={"X-Slipway-Page": "1"})
    assert page.status_code == 200
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    token = client.headers["Authorization"].removeprefix("Bearer ")
    with chatting(slipway.url, {"Cookie": cookie}) as chat:
        chat.say(**QUICK)
        assert chat.code()[0] == 4422
    plain = client.get(f"{path_of()}?token={token}", headers={"Authorization": ""})
    assert plain.status_code == 401


def test_pages_of_other_sites_are_refused(strict: Slipway, user: httpx2.Client) -> None:
    own = f"http://127.0.0.1:{strict.port}"
    for origin, status in (
        (own, 101),
        ("https://app.example.com", 101),
        ("https://evil.example.com", 403),
        (f"{own}.evil.example.com", 403),
        ("null", 403),
    ):
        for headers in (bearer(user), {}):
            assert status_of(strict, {**headers, "Origin": origin}) == status, origin


def test_other_requests_are_told_to_upgrade(client: httpx2.Client) -> None:
    for headers in ({}, {"Connection": "Upgrade", "Upgrade": "h2c"}):
        answer = client.get(path_of(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
        assert answer.headers["Upgrade"] == "websocket" and answer.headers["Sec-WebSocket-Version"] == "13"
    assert client.post(path_of(), json={}).status_code == 405


@pytest.mark.parametrize(
    ("header", "value"),
    [("Sec-WebSocket-Version", "12"), ("Sec-WebSocket-Key", "short"), ("Sec-WebSocket-Key", None)],
)
def test_a_wrong_handshake_is_refused(client: httpx2.Client, header: str, value: str | None) -> None:
    headers = {name: each for name, each in {**UPGRADE, header: value}.items() if each is not None}
    answer = client.get(path_of(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_a_connection_ends_with_its_log_in(slipway: Slipway) -> None:
    with closing(slipway.client()) as leaver, chatting(slipway.url, bearer(leaver)) as chat:
        assert chat.ask(**QUICK)["event"] == "run.completed"
        assert leaver.post("/v1/auth/logout").status_code == 204
        assert chat.ask(**QUICK)["data"]["code"] == "invalid_token"
        assert chat.code() == (4401, "invalid_token")


def test_also_in_mid_turn_and_between_turns(slipway: Slipway, client: httpx2.Client) -> None:
    busy, idle = key_of(client), key_of(client)
    with (
        chatting(slipway.url, {"x-api-key": busy["key"]}) as turning,
        chatting(slipway.url, {"x-api-key": idle["key"]}) as waiting,
    ):
        turning.say(**SLOW, on_disconnect="cancel")
        turning.until("text.delta")
        for key in (busy, idle):
            assert client.delete(f"/v1/auth/keys/{key['id']}").status_code == 204
        assert turning.until(*LAST)[-1]["data"]["code"] == "invalid_token"
        assert turning.code()[0] == waiting.code()[0] == 4401


def test_a_token_is_renewed_by_one_of_the_same_user(slipway: Slipway, client: httpx2.Client) -> None:
    first, other = key_of(client), key_of(client)
    name = {"username": "guest-of-sockets", "password": "a long password"}
    assert client.post("/v1/admin/users", json={**name, "role": "user"}).status_code == 201
    with chatting(slipway.url, {"x-api-key": first["key"]}) as chat:
        session_id = chat.ask(**QUICK)["data"]["session_id"]
        chat.say(token=other["key"])
        assert client.delete(f"/v1/auth/keys/{first['id']}").status_code == 204
        assert chat.ask(**QUICK)["data"]["session_id"] == session_id
        with closing(slipway.client(**name)) as guest:
            chat.say(token=bearer(guest)["Authorization"].removeprefix("Bearer "))
            assert chat.next()["data"]["code"] == "forbidden"
        assert chat.code()[0] == 4403
