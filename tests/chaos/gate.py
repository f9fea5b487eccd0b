"""Proxy before the model that can hold one kind of request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Where = Literal["request", "answer"]
DROPPED = {
    "connection",
    "transfer-encoding",
    "content-length",
}  # not Host: addresses in answers must lead here


class Gate:
    """Proxy to `upstream`. `hold` stops matching requests, or their answers."""

    def __init__(self, upstream: str) -> None:
        self._address = str(urlsplit(upstream).netloc)
        self._held: tuple[str, str, Where] | None = None
        self._open = threading.Event()
        self.reached = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def standing(self) -> Iterator[Gate]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        yield self
        self.open()
        self._server.shutdown()
        self._server.server_close()

    def hold(self, method: str, ending: str, where: Where) -> None:
        """Hold matching requests from now on; `reached` is set when one is held."""
        self.reached.clear()
        self._open.clear()
        self._held = (method, ending, where)

    def open(self) -> None:
        """Release; held requests are dropped, as their clients are dead."""
        self._held = None
        self._open.set()

    def _stop(self, method: str, path: str, where: Where) -> bool:
        held = self._held
        if (
            held is None
            or (held[0], held[2]) != (method, where)
            or not path.partition("?")[0].endswith(held[1])
        ):
            return False
        self.reached.set()
        self._open.wait(60)
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass_on()

            def do_POST(self) -> None:
                self._pass_on()

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if gate._stop(self.command, self.path, "request"):
                    self.close_connection = True
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() not in DROPPED}
                connection = http.client.HTTPConnection(gate._address, timeout=60)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                gate._stop(self.command, self.path, "answer")
                with suppress(OSError):
                    self.send_response_only(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in DROPPED:
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
