"""Bodies above 1 MiB: at the doors whose content is that large, and as many at once as a worker has room for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.made import app_in, close
from tests.web.made_files import block, data_url, made

MIB = 1024 * 1024
IMAGE = made("image/png", 2 * MIB)
PART = {"type": "image_url", "image_url": {"url": data_url("image/png", IMAGE)}}
BODIES: dict[str, Any] = {
    "/v1/messages": {
        "max_tokens": 99,
        "messages": [{"role": "user", "content": [block("image/png", IMAGE)]}],
    },
    "/v1/chat/completions": {"messages": [{"role": "user", "content": [PART]}]},
}
BUSY = {"/v1/messages": 529, "/v1/chat/completions": 503}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("large")
    made_app = app_in(
        folder,
        DATABASE_URL=f"sqlite:///{folder}/large.db",
        REDIS_URL=redis_server.url,
        ANTHROPIC_BASE_URL=model.url,
        DOOR_BODY_LIMIT=str(8 * MIB),
    )
    yield made_app
    close(made_app)


def services_of(app: Flask) -> Services:
    found: Services = app.extensions["slipway"]
    return found


def post(app: Flask, path: str, body: Any, **how: Any) -> TestResponse:
    demo = services_of(app).auth.users.by_name("demo")
    assert demo is not None
    token = services_of(app).auth.tokens.begin(demo).public()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    return app.test_client().post(
        path, json={"model": "assistant", **body}, headers=headers, buffered=True, **how
    )


@pytest.mark.parametrize("path", list(BODIES))
def test_beyond_its_room_a_worker_asks_to_come_again(app: Flask, path: str) -> None:
    runs, demo = services_of(app).runs, services_of(app).auth.users.by_name("demo")
    assert demo is not None
    with runs.bodies.take(demo.id, 7 * MIB):
        refused = post(app, path, BODIES[path])
        assert refused.status_code == BUSY[path] and refused.headers["Retry-After"]
        assert "error" in refused.get_json() and "x-should-retry" not in refused.headers
        small = {"max_tokens": 99, "messages": [{"role": "user", "content": "Is there room for a little?"}]}
        assert post(app, path, small).status_code == 200
    assert post(app, path, BODIES[path]).status_code == 200
    assert post(app, path, {**BODIES[path], "stream": True}).status_code == 200
    assert runs.bodies.taken == 0


@pytest.mark.parametrize("path", list(BODIES))
def test_beyond_the_limit_a_body_is_too_large_and_leaves_nothing(app: Flask, path: str) -> None:
    refused = post(app, path, {**BODIES[path], "user": "x" * 8 * MIB})
    assert refused.status_code == 413 and "error" in refused.get_json()
    assert services_of(app).runs.bodies.taken == 0


def test_a_faulty_body_leaves_nothing(app: Flask) -> None:
    faulty = {"messages": [{"role": "user", "content": [PART, {"type": "odd"}]}]}
    assert post(app, "/v1/chat/completions", faulty).status_code == 400
    assert services_of(app).runs.bodies.taken == 0


def test_other_doors_take_no_more_than_before(app: Flask) -> None:
    refused = post(app, "/v1/agents/assistant/invoke", {"input": "x" * 2 * MIB})
    assert refused.status_code == 413


def test_a_conversation_besides_its_files_is_bounded(app: Flask) -> None:
    turns = [{"role": role, "content": "x" * 390_000} for role in ("user", "assistant") * 6]
    body = {"max_tokens": 99, "messages": [*turns, {"role": "user", "content": "So?"}]}
    refused = post(app, "/v1/messages", body)
    assert refused.status_code == 413 and "besides" in refused.get_data(as_text=True)


def test_long_text_beyond_ascii_is_refused_before_it_is_copied(app: Flask) -> None:
    body = {"max_tokens": 99, "messages": [{"role": "user", "content": "x" * MIB + "\u00e9"}]}
    refused = post(app, "/v1/messages", body)
    assert refused.status_code == 400
    assert refused.get_json()["error"]["message"].startswith("/messages/0/content: must not have more")


def test_only_the_fault_itself_is_told(app: Flask) -> None:
    odd = {"max_tokens": 99, "messages": [{"role": "user", "content": [{"type": "image", "source": 1}]}]}
    message = post(app, "/v1/messages", odd).get_json()["error"]["message"]
    assert message.startswith("/messages/0/content/0/source: ") and ";" not in message
