"""Claude at Bedrock Mantle, by the SDK's client, before a server that verifies what it gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import errors
from service.llm import sdk
from service.llm.platforms import PlatformClient
from service.llm.relay import RelayClient, RelayedRequest
from tests.llm.conftest import a_call, ask, run
from tests.llm.platform_servers import AWS, REGION, is_signed, signed
from tests.llm.wire_server import MESSAGE, WireServer, end, start, stream, text_events, whole

EVENTS = [start(), *text_events("Good ", "day."), *end()]
SERVICE = "bedrock-mantle"
BEARER = "AWS_BEARER_TOKEN_BEDROCK"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (BEARER, "ANTHROPIC_AWS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**AWS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer(signed(whole(MESSAGE), SERVICE))
    yield server
    server.stop()


def at_mantle(url: str, ids: dict[str, str] | None = None) -> PlatformClient:
    made = sdk.mantle(REGION, f"{url}/anthropic")
    return PlatformClient(made, ids or {}, 10.0, 3.0, 64, default_id="anthropic.{}")


@pytest.fixture
def mantle(server: WireServer) -> Iterator[PlatformClient]:
    client = at_mantle(server.url, {"claude-opus-5-5": "anthropic.claude-opus-5-5-v2"})
    yield client
    client.close()


def asked(server: WireServer) -> tuple[str, dict[str, Any]]:
    exchange = server.requests[-1]
    return exchange.head.decode().split(" ")[1], exchange.json


def test_mantle_gets_a_signed_body_of_the_messages_api(mantle: PlatformClient, server: WireServer) -> None:
    _, reply = run(mantle.create(ask(), a_call()))
    assert reply.text == "Good day." and reply.usage.input_tokens == 20
    path, body = asked(server)
    assert (path, body["model"]) == ("/anthropic/v1/messages", "anthropic.claude-haiku-5-5")
    assert is_signed(server.requests[0], SERVICE) and not is_signed(server.requests[0])
    run(mantle.create(ask(model="claude-opus-5-5"), a_call()))
    assert asked(server)[1]["model"] == "anthropic.claude-opus-5-5-v2"


def test_mantle_streams_and_counts(mantle: PlatformClient, server: WireServer) -> None:
    server.otherwise = signed(stream(EVENTS), SERVICE)
    pieces, reply = run(mantle.create(ask(stream=True), a_call()))
    assert "".join(pieces) == reply.text == "Good day." and asked(server)[1]["stream"] is True
    server.otherwise = signed(whole({"input_tokens": 7}), SERVICE)
    assert mantle.count_tokens(ask(), a_call()) == 7
    assert asked(server)[0] == "/anthropic/v1/messages/count_tokens"


def test_mantle_takes_a_key_of_bedrock(monkeypatch: pytest.MonkeyPatch, server: WireServer) -> None:
    monkeypatch.setenv(BEARER, "ABSK-key")
    server.otherwise = whole(MESSAGE)
    client = at_mantle(server.url)
    run(client.create(ask(), a_call()))
    assert server.requests[-1].headers["authorization"] == "Bearer ABSK-key"
    client.close()


def test_the_body_and_betas_of_a_relayed_call_arrive(mantle: PlatformClient, server: WireServer) -> None:
    server.otherwise = signed(stream(EVENTS), SERVICE)
    sent = {
        "model": "claude-haiku-5-5",
        "max_tokens": 5,
        "stream": True,
        "messages": [{"role": "user", "content": "Grüße 😀"}],
        "x_new": {"a": 1},
    }
    request = RelayedRequest(
        model="claude-haiku-5-5",
        messages=[],
        max_tokens=5,
        stream=True,
        body=json.dumps(sent).encode(),
        betas="one-beta,two",
    )
    got = b"".join(RelayClient(mantle).create(request, a_call()))
    assert [json.loads(line[6:]) for line in got.split(b"\n") if line.startswith(b"data: ")] == EVENTS
    assert asked(server)[1] == {**sent, "model": "anthropic.claude-haiku-5-5"}
    assert server.requests[-1].headers["anthropic-beta"] == "one-beta,two"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.ModelRejected),
        (403, errors.ModelKeyRefused),
        (429, errors.ModelRateLimited),
        (529, errors.ModelUnavailable),
    ],
)
def test_refusals_of_mantle_are_ours(
    mantle: PlatformClient, server: WireServer, status: int, error: type[errors.ModelError]
) -> None:
    server.otherwise = whole({"type": "error", "error": {"type": "x", "message": "UPSTREAM WORDS"}}, status)
    call = a_call()
    with pytest.raises(error) as raised:
        run(mantle.create(ask(), call))
    assert not call.progress.billable and "UPSTREAM" not in str(raised.value)


def test_without_credentials_the_key_is_refused(
    server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in AWS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    made = sdk.mantle("eu-central-1", f"{server.url}/anthropic")
    client = PlatformClient(made, {}, 10.0, 3.0, 4)
    with pytest.raises(errors.ModelKeyRefused):
        run(client.create(ask(), a_call()))
    assert not server.requests
    client.close()
