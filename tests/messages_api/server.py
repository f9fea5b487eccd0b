"""Server: speaks the Messages API, whole and streamed, by a script. `python -m tests.messages_api` starts one alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.messages_api.asked import CHARACTERS_PER_TOKEN, RAW, Asked, Block, Said, Script
from tests.messages_api.rules import THINKING, faults_of, signature

NO_WINDOW = 10**9
DELTA = 40  # characters
PIECES = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class MessagesApi:
    """One running API. `requests` are those of `/v1/messages`; `faults` what was wrong with them.

    `bodies`: those requests as they were sent; `counted`: bodies of `count_tokens`.
    """

    def __init__(self, script: Script, window: int = NO_WINDOW) -> None:
        self.script, self.window = script, window
        self.requests: list[Asked] = []
        self.faults: list[str] = []
        self.bodies: list[bytes] = []
        self.counted: list[dict[str, Any]] = []
        self.too_long = 0
        self._signed: dict[str, Block] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: dict[str, Any]) -> Said:
        """Judge a request, then answer by the script."""
        asked = Asked(body)
        self.requests.append(asked)
        if asked.tokens > self.window:
            self.too_long += 1
            words = f"prompt is too long: {asked.tokens} tokens > {self.window} maximum"
            return Said(status=400, message=words)
        found = list(faults_of(asked, self._signed))
        if found:
            self.faults += found
            return Said(status=400)
        said = self.script(asked)
        self._signed |= {signature(block): block for block in said.content if block["type"] in THINKING}
        return said


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def _handler(api: MessagesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._json(200, {"data": [], "has_more": False, "first_id": None, "last_id": None})

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            body = json.loads(sent)
            if self.path.endswith("/count_tokens"):
                api.counted.append(body)
                self._json(200, {"input_tokens": Asked(body).tokens})
                return
            api.bodies.append(sent)
            said = api.answer(body)
            if said.status != 200:
                kind = "invalid_request_error" if said.status == 400 else "api_error"
                fault = {"type": kind, "message": said.message}
                self._json(said.status, {"type": "error", "error": fault, "request_id": "req_1"})
            elif body.get("stream"):
                self._events(_events(body, said))
            else:
                self._json(200, _message(body, said))

        def _json(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _events(self, events: Iterator[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _message(body: dict[str, Any], said: Said) -> dict[str, Any]:
    content = [{name: part for name, part in block.items() if name != RAW} for block in said.content]
    return {**_shell(body), "content": content, "stop_reason": said.stop, "usage": _usage(body, said)}


def _shell(body: dict[str, Any]) -> dict[str, Any]:
    empty = {"id": "msg_1", "type": "message", "role": "assistant", "stop_sequence": None}
    return {**empty, "model": body["model"], "content": [], "stop_reason": None}


def _usage(body: dict[str, Any], said: Said) -> dict[str, int]:
    written = len(json.dumps(said.content)) // CHARACTERS_PER_TOKEN + 1
    return {"input_tokens": Asked(body).tokens, "output_tokens": min(written, body["max_tokens"])}


def _events(body: dict[str, Any], said: Said) -> Iterator[dict[str, Any]]:
    usage = _usage(body, said)
    yield {"type": "message_start", "message": {**_shell(body), "usage": {**usage, "output_tokens": 1}}}
    for index, block in enumerate(said.content):
        at = {"index": index}
        begun, deltas = _begun(block)
        yield {"type": "content_block_start", **at, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", **at, "delta": delta}
        yield {"type": "content_block_stop", **at}
    ended = {"stop_reason": said.stop, "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def _begun(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """Split a block into its opening and its deltas."""
    if block["type"] == "tool_use":
        written = block.get(RAW) or json.dumps(block["input"])
        opening = {name: block[name] for name in ("type", "id", "name")}
        return {**opening, "input": {}}, [
            {"type": "input_json_delta", "partial_json": p} for p in _cut(written)
        ]
    if block["type"] not in PIECES:
        return block, []
    kind, name = PIECES[block["type"]]
    deltas = [{"type": kind, name: piece} for piece in _cut(block[name])]
    if "signature" in block:
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {"type": block["type"], name: ""}, deltas


def _cut(text: str) -> list[str]:
    return [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
