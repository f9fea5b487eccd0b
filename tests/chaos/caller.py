"""Remote agent that makes model calls at the gateway, whole and streamed by turns: `python -m tests.chaos.caller PORT`.

It keeps nothing, so it begins again when it is asked again, and makes a call again whose answer did not arrive.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

AGENT = """\
description: Asks models through the gateway
pattern: remote
limits: {{steps: 40, seconds: 120}}
remote: {{url: "http://127.0.0.1:{port}/", silence_seconds: 60}}
"""
CALLS = 4
MODEL = "claude-haiku-5-5"
PATIENCE = 30.0  # seconds that a replica of the gateway may be away


class Refused(Exception):
    """Raised for an answer of the gateway that no repetition changes."""


def body_of(asked: dict[str, Any], number: int) -> dict[str, Any]:
    content = f"Tell me of {asked['input']}, part {number}"
    message = {"role": "user", "content": content}
    return {"model": MODEL, "max_tokens": 60, "messages": [message], "stream": number % 2 == 0}


def call(asked: dict[str, Any], number: int) -> str:
    """Return the model's text. Raises `Refused`, such as at the end of the token."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            text = _answered(asked, body_of(asked, number))
        except httpx2.HTTPError:
            text = None
        if text is not None:
            return text
        if time.monotonic() > end:
            raise Refused
        time.sleep(0.1)


def _answered(asked: dict[str, Any], body: dict[str, Any]) -> str | None:
    """Ask once; None: the answer is not whole, or the gateway is overloaded."""
    headers = {"x-api-key": asked["run_token"]}
    url = asked["base_url"] + "/v1/messages"
    answer = httpx2.post(url, json=body, headers=headers, timeout=30, trust_env=False)
    if answer.status_code in (429, 503, 529):
        return None
    if answer.status_code != 200:
        raise Refused
    if not body["stream"]:
        return str(answer.json()["content"][0]["text"])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    if not events or events[-1]["type"] != "message_stop":
        return None
    return "".join(
        event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta"
    )


def events(asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    texts = []
    try:
        for number in range(CALLS):
            about = {"call_id": f"call {number}"}
            yield "tool.called", {**about, "name": "ask", "arguments": {}}
            texts.append(call(asked, number))
            yield "tool.finished", {**about, "ok": True, "ms": 1}
    except Refused:
        yield "run.failed", {"status": "failed", "error": {"code": "model_error"}}
        return
    yield "run.completed", {"status": "succeeded", "output": "\n".join(texts)}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if self.path.endswith("/cancel"):
            return
        with suppress(ConnectionError):  # its run has gone elsewhere
            for name, data in events(asked):
                self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving(port: int) -> Iterator[None]:
    """Serve in a thread of this process."""
    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
