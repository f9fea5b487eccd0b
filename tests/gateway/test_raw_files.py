"""Images and documents in calls of models themselves: nobody else's, and what cannot be bounded is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import HELLO, Gateway
from tests.gateway.test_keys import key_of
from tests.gateway.upstream import MODEL as OTHER
from tests.gateway.upstream import chat
from tests.llm.wire_server import WireServer

KEPT: dict[str, Any] = {"type": "kept", "media_type": "image/png", "size": 10, "digest": "0" * 64}
PAGE: dict[str, Any] = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "a. b."},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Gateway]:
    server, home = WireServer(chat), tmp_path_factory.mktemp("raw")
    settings: dict[str, Any] = {"openai_base_url": f"{server.url}/v1", "openai_api_key": "sk-upstream"}
    with house.gateway(home, redis_server.url, **settings) as made:
        yield made
    server.stop()


def body(*content: dict[str, Any]) -> dict[str, Any]:
    return {**HELLO, "messages": [{"role": "user", "content": list(content)}]}


def tokens(gateway: Gateway) -> dict[str, str]:
    return {"key": key_of(gateway), "token of a run": gateway.token(gateway.run())}


@pytest.mark.parametrize(
    "source", [{"type": "kept"}, KEPT, {**KEPT, "size": "large"}, {**KEPT, "size": -(10**9)}]
)
def test_references_of_ours_are_the_clients_words_in_a_body_of_theirs(gateway: Gateway, source: Any) -> None:
    for kind, token in tokens(gateway).items():
        before = len(gateway.api.bodies)
        answer = gateway.post(token, body({"type": "image", "source": source}))
        assert answer.status_code < 500 and gateway.held == 0, (kind, answer.text)
        assert all(b"base64" not in sent for sent in gateway.api.bodies[before:])


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "image", "source": {"type": "file"}}],
        },
        {"type": "container_upload", "file_id": "file_1"},
    ],
)
def test_files_of_the_account_that_all_callers_share_are_refused(gateway: Gateway, block: Any) -> None:
    before = len(gateway.api.bodies)
    for token in tokens(gateway).values():
        answer = gateway.post(token, body(block))
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert "/messages: has a file by its id" in answer.json()["error"]["message"]
    assert len(gateway.api.bodies) == before and gateway.held == 0


@pytest.mark.parametrize("file", [{"file_id": "file-1"}, {"file_id": 5, "file_data": "x"}, "file-1", None])
def test_so_are_those_of_the_upstream(gateway: Gateway, file: Any) -> None:
    turns = [{"role": "user", "content": [{"type": "file", "file": file}]}]
    asked = {"model": OTHER, "max_completion_tokens": 50, "messages": turns}
    answer = gateway.post(key_of(gateway), asked, "/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages[0].content")


@pytest.mark.parametrize("kind", ["input_file", "input_image"])
def test_and_those_of_its_responses(gateway: Gateway, kind: str) -> None:
    turns = [{"role": "user", "content": [{"type": kind, "file_id": "file-1"}]}]
    answer = gateway.post(key_of(gateway), {"model": OTHER, "input": turns}, "/v1/responses")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0].content")


def test_a_document_to_be_cited_is_counted(gateway: Gateway) -> None:
    for citations, counted in ((None, 0), ({"enabled": False}, 0), ({"enabled": True}, 1)):
        before = len(gateway.api.counted)
        answer = gateway.post(key_of(gateway), body({**PAGE, "citations": citations}))
        assert answer.status_code == 200 and len(gateway.api.counted) == before + counted
