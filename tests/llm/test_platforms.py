"""Claude at Bedrock, by the SDK's client, before a server that verifies what it gets."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service import errors
from service.llm import sdk, stream_reader
from service.llm.client import ModelCall
from service.llm.platforms import BedrockClient
from service.llm.relay import RelayClient, RelayedRequest
from tests.llm.conftest import a_call, ask, run
from tests.llm.platform_servers import AWS, REGION, aws_stream, event, exception, is_signed, signed
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    WireServer,
    chunk,
    close,
    end,
    start,
    text_events,
    whole,
)

IDS = {"claude-haiku-5-5": "global.anthropic.claude-haiku-5-5-v1:0"}
EVENTS = [start(), *text_events("Good ", "day."), *end()]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**AWS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer(signed(whole(MESSAGE)))
    yield server
    server.stop()


def at_bedrock(url: str, ids: dict[str, str] = IDS) -> BedrockClient:
    return BedrockClient(sdk.bedrock(REGION, url), ids, 10.0, 3.0, 64, default_id="anthropic.{}")


@pytest.fixture
def bedrock(server: WireServer) -> Iterator[BedrockClient]:
    client = at_bedrock(server.url)
    yield client
    client.close()


def asked(server: WireServer) -> tuple[str, dict[str, Any]]:
    exchange = server.requests[-1]
    return exchange.head.decode().split(" ")[1], exchange.json


def test_bedrock_gets_a_signed_request_with_its_own_id_of_the_model(
    bedrock: BedrockClient, server: WireServer
) -> None:
    _, reply = run(bedrock.create(ask(), a_call()))
    assert reply.text == "Good day." and reply.usage.input_tokens == 20 and reply.request_id == "req_1"
    path, body = asked(server)
    assert path == "/model/global.anthropic.claude-haiku-5-5-v1:0/invoke"
    assert "model" not in body and "stream" not in body and body["anthropic_version"]
    assert is_signed(server.requests[0])
    run(bedrock.create(ask(model="claude-opus-5-5"), a_call()))
    assert asked(server)[0] == "/model/anthropic.claude-opus-5-5/invoke"


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_bedrock_streams_text_however_its_frames_are_cut(
    bedrock: BedrockClient, server: WireServer, size: int
) -> None:
    server.otherwise = signed(aws_stream(EVENTS, size=size))
    pieces, reply = run(bedrock.create(ask(stream=True), a_call()))
    assert "".join(pieces) == reply.text == "Good day." and reply.stop_reason == "end_turn"
    assert reply.usage.output_tokens == 4 and asked(server)[0].endswith("/invoke-with-response-stream")
    run(bedrock.create(ask(stream=True), a_call()))
    assert server.connections == 1, "the connection is used again"


def test_many_streams_of_bedrock_are_read_by_one_thread(
    bedrock: BedrockClient, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.llm.messages_client.FEW_STREAMS", 0)
    monkeypatch.setattr(stream_reader, "FEW_STREAMS", 0)
    begun = threading.Event()

    def rest(exchange: Exchange) -> None:
        begun.wait(10)
        for one in map(event, EVENTS[3:]):
            for part in (one[:30], one[30:]):
                exchange.send(chunk(part))
        exchange.send(b"0\r\n\r\n")

    server.otherwise = signed(aws_stream(EVENTS[:3], then=rest))
    got: list[str] = []
    read = stream_reader.StreamReader.read

    def watched(*args: Any) -> None:
        begun.set()
        read(*args)

    monkeypatch.setattr(stream_reader.StreamReader, "read", watched)
    call = ModelCall(a_call().deadline, on_text=got.append)
    pieces, reply = run(bedrock.create(ask(stream=True), call))
    assert (pieces, got, reply.text) == (["Good "], ["day."], "Good day.")


def test_many_calls_at_once_are_all_signed(bedrock: BedrockClient, server: WireServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda _: run(bedrock.create(ask(), a_call()))[1].text, range(64)))
    assert set(texts) == {"Good day."} and all(map(is_signed, server.requests))


def test_a_stream_of_bedrock_that_breaks_is_interrupted_and_billed(
    bedrock: BedrockClient, server: WireServer
) -> None:
    server.otherwise = signed(aws_stream(EVENTS[:3], then=close))
    call = a_call()
    with pytest.raises(errors.ModelInterrupted):
        run(bedrock.create(ask(stream=True), call))
    assert call.progress.billable and call.progress.usage is not None and call.progress.text == "Good "


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("throttlingException", errors.ModelRateLimited),
        ("modelStreamErrorException", errors.ModelUnavailable),
        ("validationException", errors.ModelRejected),
    ],
)
def test_an_error_frame_is_an_error_of_ours(
    bedrock: BedrockClient, server: WireServer, kind: str, error: type[errors.ModelError]
) -> None:
    server.otherwise = signed(aws_stream([*EVENTS[:2], exception(kind)]))
    with pytest.raises(error) as raised:
        run(bedrock.create(ask(stream=True), a_call()))
    assert "UPSTREAM" not in str(raised.value)


@pytest.mark.parametrize(
    "bad",
    [
        event({"type": "ping"})[:-1] + b"\0",  # its checksum is wrong
        event({"no": "type"}),
        event({"type": 7}),
        b"\xff" * 64,
    ],
)
def test_frames_that_cannot_be_read_end_the_call(
    bedrock: BedrockClient, server: WireServer, bad: bytes
) -> None:
    server.otherwise = signed(aws_stream([*EVENTS[:2], bad]))
    with pytest.raises(errors.ModelError):
        run(bedrock.create(ask(stream=True), a_call()))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.ModelRejected),
        (403, errors.ModelKeyRefused),
        (424, errors.ModelUnavailable),
        (429, errors.ModelRateLimited),
        (503, errors.ModelUnavailable),
    ],
)
def test_refusals_of_bedrock_are_ours(
    bedrock: BedrockClient, server: WireServer, status: int, error: type[errors.ModelError]
) -> None:
    server.otherwise = whole({"message": "UPSTREAM WORDS"}, status)
    call = a_call()
    with pytest.raises(error) as raised:
        run(bedrock.create(ask(), call))
    assert type(raised.value) is error and not call.progress.billable and "UPSTREAM" not in str(raised.value)


def test_a_prompt_that_is_too_long_is_told_as_such(bedrock: BedrockClient, server: WireServer) -> None:
    server.otherwise = whole({"message": "Input is too long for requested model."}, 400)
    with pytest.raises(errors.PromptTooLong):
        run(bedrock.create(ask(), a_call()))


def test_without_credentials_the_key_is_refused(
    server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in AWS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = BedrockClient(sdk.bedrock("eu-central-1", server.url), {}, 10.0, 3.0, 4)
    call = a_call()
    with pytest.raises(errors.ModelKeyRefused):
        run(client.create(ask(), call))
    assert not server.requests and not call.progress.billable


def test_the_body_of_a_relayed_call_arrives_and_its_events_come_back(
    bedrock: BedrockClient, server: WireServer
) -> None:
    server.otherwise = signed(aws_stream(EVENTS, size=50))
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
    relay, got = RelayClient(bedrock).create(request, a_call()), b""
    for piece in relay:
        got += piece
    data = [json.loads(line[6:]) for line in got.split(b"\n") if line.startswith(b"data: ")]
    assert data == EVENTS and got.startswith(b"event: message_start\n")
    body = asked(server)[1]
    assert body["x_new"] == {"a": 1} and body["messages"] == sent["messages"]
    assert body["anthropic_beta"] == ["one-beta", "two"]


def test_bedrock_counts_the_body_of_a_call(bedrock: BedrockClient, server: WireServer) -> None:
    server.otherwise = signed(whole({"inputTokens": 42}))
    assert bedrock.count_tokens(ask(), a_call()) == 42
    path, body = asked(server)
    assert path.endswith("/count-tokens")
    counted = json.loads(base64.b64decode(body["input"]["invokeModel"]["body"]))
    assert counted["messages"] and counted["max_tokens"] == 1 and counted["anthropic_version"]


def test_ping_takes_any_answer_but_an_error_of_the_server(bedrock: BedrockClient, server: WireServer) -> None:
    server.otherwise = whole({}, 404)
    bedrock.ping()
    server.otherwise = whole({}, 503)
    with pytest.raises(errors.ModelUnavailable):
        bedrock.ping()
    server.stop()
    with pytest.raises(errors.ModelUnavailable):
        at_bedrock(server.url).ping()
