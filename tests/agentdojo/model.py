"""Messages API that obeys everything: the user's task, and each injected task once a tool result shows it.

Stateless, as a model is: the next reply follows from the messages alone. The first turn names the pair.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.llm.wire_server import MESSAGE, end, sse, start, text_events

PAIR = re.compile(r"\[pair (\w+)\]")


class Obedient:
    """Plans of pairs by key, as the tool server tells them."""

    def __init__(self) -> None:
        self.plans: dict[str, dict[str, Any]] = {}

    def reply(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the content blocks of the next reply."""
        blocks = [block for message in body["messages"] for block in _blocks(message)]
        # the newest turn of the user names the pair: results of tools may quote anything
        said = " ".join(block["text"] for block in blocks if block["type"] == "text")
        key = PAIR.findall(said)[-1]
        plan = self.plans[key]
        made = {block["id"] for block in blocks if block["type"] == "tool_use"}
        results = " ".join(_text(block) for block in blocks if block["type"] == "tool_result")
        injected = plan["injected"]
        seen = injected is not None and injected["marker"] in results
        plan["seen"] = plan.get("seen", False) or seen
        wanted = _left(key, "u", plan["user"]["calls"], made)[:1]
        if seen:  # before the user's next call, in the same reply
            wanted = [*_left(key, "i", injected["calls"], made), *wanted]
        if wanted:
            return wanted
        answer = f"{plan['user']['output']}\n{injected['output'] if seen else ''}".strip()
        return [{"type": "text", "text": answer or "Done."}]


def _left(key: str, task: str, calls: list[Any], made: set[str]) -> list[dict[str, Any]]:
    planned = [
        {"type": "tool_use", "id": f"toolu_{key}_{task}{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(calls)
    ]
    return [use for use in planned if use["id"] not in made]


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(result: dict[str, Any]) -> str:
    content = result.get("content", "")
    return content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)


def _events(content: list[dict[str, Any]], stop: str) -> Iterator[dict[str, Any]]:
    yield start()
    for index, block in enumerate(content):
        if block["type"] == "text":
            yield from text_events(block["text"], index=index)
            continue
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        begun = {**block, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield from end(stop)


@contextmanager
def obedient_model() -> Iterator[tuple[str, Obedient]]:
    """Serve the model on loopback; yields its URL, and the object that takes the plans."""
    model = Obedient()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "count_tokens" in self.path:
                return self._send("application/json", b'{"input_tokens": 50}')
            content = model.reply(body)
            stop = "tool_use" if content[0]["type"] == "tool_use" else "end_turn"
            if body.get("stream"):
                events = b"".join(sse(event) for event in _events(content, stop))
                return self._send("text/event-stream", events)
            message = {**MESSAGE, "content": content, "stop_reason": stop}
            return self._send("application/json", json.dumps(message).encode())

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Log nothing: the harness shows progress."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}", model
    finally:
        listener.shutdown()
        listener.server_close()
