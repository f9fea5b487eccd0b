"""CORS in a real browser: a page of another origin that calls the API, allowed and not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Model, RedisServer, Slipway, free_port, slipway_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
CALL = """async ({url, token, headers, cookies}) => {
  try {
    const answer = await fetch(url, {
      method: "POST", headers: {"Content-Type": "application/json", ...headers}, body: JSON.stringify({input: "Hello"}),
      credentials: cookies ? "include" : "same-origin",
    });
    return {status: answer.status, id: answer.headers.get("X-Request-ID"), cost: answer.headers.get("X-Cost-USD"),
            text: await answer.text()};
  } catch (error) {
    return {error: error.message};
  }
}"""


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def origin() -> Iterator[str]:
    """Another site: an empty page on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Blank)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def called(
    browser: Browser, origin: str, slipway: Slipway, path: str, headers: dict[str, str], **options: Any
) -> Any:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(origin)
        return page.evaluate(
            CALL, {"url": slipway.url + path, "headers": headers, "cookies": False, **options}
        )
    finally:
        context.close()


def test_another_site_calls_where_it_is_allowed(
    chromium: Browser, origin: str, tmp_path: Path, redis_server: RedisServer, model: Model, slipway: Slipway
) -> None:
    with slipway_server(
        tmp_path, redis_server.url, model.url, CORS_ORIGINS=origin, WEB_CONCURRENCY="1"
    ) as allowing:
        signed = dict(allowing.client().headers)
        bearer = {"Authorization": signed["authorization"], "Idempotency-Key": "from-another-site"}
        invoke = "/v1/agents/support/invoke"
        answer = called(chromium, origin, allowing, invoke, bearer)
        assert answer["status"] == 200 and answer["id"] and answer["cost"], answer
        assert json.loads(answer["text"])["status"] == "succeeded"
        assert called(chromium, origin, allowing, invoke, {})["status"] == 401  # a problem can be read
        assert "error" in called(chromium, origin, allowing, invoke, bearer, cookies=True)
        assert "error" in called(chromium, origin, allowing, "/page/renew", {"X-Slipway-Page": "1"})
        elsewhere = origin.replace("127.0.0.1", "localhost")
        assert "error" in called(chromium, elsewhere, allowing, invoke, bearer)
    assert "error" in called(chromium, origin, slipway, invoke, {"Authorization": signed["authorization"]})
