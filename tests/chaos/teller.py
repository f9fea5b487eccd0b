"""Model mock whose words carry the number of the call that produced them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Teller:
    """Speaks the Messages API: `words` pieces of text, one every `pace` seconds, as a stream or at the end."""

    def __init__(self, words: int, pace: float) -> None:
        self.words, self.pace = words, pace
        self.calls = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def standing(self) -> Iterator[Teller]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        yield self
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        with self._lock:
            self.calls = 0

    def called(self) -> int:
        with self._lock:
            self.calls += 1
            return self.calls

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        teller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                call = teller.called()
                with suppress(OSError):  # whoever asked is dead, or was stopped
                    (self._stream if asked.get("stream") else self._whole)(asked["model"], call)

            def do_GET(self) -> None:
                self._send(b'{"data": []}', "application/json")

            def _whole(self, model: str, call: int) -> None:
                time.sleep(teller.words * teller.pace)
                text = "".join(f"{call}.{number} " for number in range(teller.words))
                answer = {**_message(model), "content": [{"type": "text", "text": text}]}
                self._send(json.dumps({**answer, "stop_reason": "end_turn"}).encode(), "application/json")

            def _stream(self, model: str, call: int) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self._event("message_start", message={**_message(model), "stop_reason": None})
                self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
                for number in range(teller.words):
                    time.sleep(teller.pace)
                    piece = {"type": "text_delta", "text": f"{call}.{number} "}
                    self._event("content_block_delta", index=0, delta=piece)
                self._event("content_block_stop", index=0)
                ends = {"stop_reason": "end_turn", "stop_sequence": None}
                self._event("message_delta", delta=ends, usage={"output_tokens": teller.words})
                self._event("message_stop")
                self.wfile.write(b"0\r\n\r\n")

            def _event(self, name: str, **data: Any) -> None:
                event = f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
                self.wfile.write(b"%X\r\n%b\r\n" % (len(event), event))
                self.wfile.flush()

            def _send(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _message(model: str) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 1}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_sequence": None,
        "usage": usage,
    }
