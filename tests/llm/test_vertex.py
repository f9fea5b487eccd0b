"""Claude at Vertex AI, by the SDK's client, before servers that verify what they get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from service import errors
from service.llm import sdk
from service.llm.platforms import PlatformClient
from tests.llm.conftest import a_call, ask, run
from tests.llm.wire_server import MESSAGE, WireServer, end, start, stream, text_events, whole

EVENTS = [start(), *text_events("Good ", "day."), *end()]


def asked(server: WireServer) -> tuple[str, dict[str, Any]]:
    exchange = server.requests[-1]
    return exchange.head.decode().split(" ")[1], exchange.json


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """Google's token endpoint and Vertex AI in one, with a service account that the environment names."""
    tokens = WireServer(whole({"access_token": "ya29.good", "expires_in": 3600, "token_type": "Bearer"}))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "acme",
        "private_key": pem.decode(),
        "client_email": "slipway@acme.iam.gserviceaccount.com",
        "token_uri": f"{tokens.url}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    yield tokens
    tokens.stop()


def bearer(handler: Any) -> Any:
    refuse = whole({"error": {"code": 401, "message": "UPSTREAM WORDS", "status": "UNAUTHENTICATED"}}, 401)
    return lambda one: (handler if one.headers.get("authorization") == "Bearer ya29.good" else refuse)(one)


def test_vertex_gets_googles_token_and_its_own_path(google: WireServer) -> None:
    server = WireServer(bearer(whole(MESSAGE)))
    client = PlatformClient(sdk.vertex("global", "acme", f"{server.url}/v1"), {}, 10.0, 3.0, 4)
    try:
        _, reply = run(client.create(ask(), a_call()))
        assert reply.text == "Good day."
        place = "/v1/projects/acme/locations/global/publishers/anthropic/models/"
        path, body = asked(server)
        assert path == f"{place}claude-haiku-5-5:rawPredict"
        assert "model" not in body and body["anthropic_version"]
        server.otherwise = bearer(stream(EVENTS))
        pieces, reply = run(client.create(ask(stream=True), a_call()))
        assert (
            "".join(pieces) == "Good day." and asked(server)[0] == f"{place}claude-haiku-5-5:streamRawPredict"
        )
        server.otherwise = bearer(whole({"input_tokens": 7}))
        assert client.count_tokens(ask(), a_call()) == 7
        assert asked(server)[0] == f"{place}count-tokens:rawPredict"
        assert len(google.requests) == 1, "the token is kept"
    finally:
        client.close()
        server.stop()


def test_an_account_that_google_refuses_is_a_refused_key(google: WireServer) -> None:
    google.otherwise = whole({"error": "invalid_grant", "error_description": "UPSTREAM WORDS"}, 400)
    client = PlatformClient(sdk.vertex("global", "acme", "http://127.0.0.1:1/v1"), {}, 10.0, 3.0, 4)
    with pytest.raises(errors.ModelKeyRefused) as raised:
        run(client.create(ask(), a_call()))
    assert "UPSTREAM" not in str(raised.value)
