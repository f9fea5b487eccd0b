"""A TCP server that answers exactly as told, well or badly: for what a well-behaved server cannot be asked to do."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

Handler = Callable[["Exchange"], None]

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "Good day."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 4},
}


class Exchange:
    """One request and its connection, for a handler to answer. `close()` ends the connection."""

    def __init__(self, server: WireServer, conn: socket.socket, head: bytes, body: bytes) -> None:
        self.server, self.conn, self.head, self.body = server, conn, head, body

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def send(self, data: bytes) -> None:
        self.conn.sendall(data)

    def close(self) -> None:
        # shutdown too: a close alone is put off while the thread that reads still holds the socket
        with suppress(OSError):
            self.conn.shutdown(socket.SHUT_RDWR)
        self.conn.close()

    def wait_for_end(self) -> None:
        """Until the client hangs up, which `server.hung_up` then tells."""
        try:
            self.conn.settimeout(10)
            if self.conn.recv(1) == b"":
                self.server.hung_up.set()
        except TimeoutError:
            pass
        except OSError:
            self.server.hung_up.set()


class WireServer:
    """Answers each request with the next handler of `script`, and with `otherwise` when there is none left."""

    def __init__(self, otherwise: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.otherwise = otherwise
        self.script: list[Handler] = []
        self.requests: list[Exchange] = []
        self.connections = 0
        self.asked = threading.Semaphore(0)  # released once for each request that has arrived
        self.hung_up = threading.Event()
        self._tls, self._stopped = tls, False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes accept; a close alone would not
        self._listener.close()
        with self._lock:
            for conn in self._open:
                conn.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        try:
            if self._tls:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with self._lock:
                self._open.add(conn)
            while (asked := self._read(conn)) is not None:
                exchange = Exchange(self, conn, *asked)
                with self._lock:
                    self.requests.append(exchange)
                    handler = self.script.pop(0) if self.script else self.otherwise
                self.asked.release()
                handler(exchange)
        except OSError:
            pass  # the client went away, as some tests want
        finally:
            conn.close()
            with self._lock:
                self._open.discard(conn)

    @staticmethod
    def _read(conn: socket.socket) -> tuple[bytes, bytes] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = conn.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        names = [line.lower().partition(b":")[0] for line in head.split(b"\r\n")[1:]]
        if len(names) != len(set(names)):  # servers refuse a second Content-Length (RFC 9112, 6.3)
            conn.sendall(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return None
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += conn.recv(65536)
        return head, body


def head(status: int, length: int | None, headers: str = "") -> bytes:
    """A head; without a length the body is chunked."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 {status} X\r\nrequest-id: req_1\r\n{framing}\r\n{headers}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: dict[str, Any] | bytes, status: int = 200, headers: str = "") -> Handler:
    """A handler: one JSON answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.send(
        head(status, len(data), f"content-type: application/json\r\n{headers}") + data
    )


def error(status: int, kind: str, headers: str = "", **details: Any) -> Handler:
    """A handler: an error as the Messages API shapes it, with words nobody else should see."""
    fault = {"type": kind, "message": "UPSTREAM WORDS", **({"details": details} if details else {})}
    return whole({"type": "error", "error": fault, "request_id": "req_1"}, status, headers)


def sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def start(usage: dict[str, Any] | None = None) -> dict[str, Any]:
    empty = {**MESSAGE, "content": [], "stop_reason": None}
    return {
        "type": "message_start",
        "message": {**empty, "usage": usage or {"input_tokens": 20, "output_tokens": 1}},
    }


def text_events(*pieces: str, index: int = 0) -> list[dict[str, Any]]:
    begin = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    middle = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [begin, *middle, {"type": "content_block_stop", "index": index}]


def end(stop_reason: str = "end_turn", output_tokens: int = 4) -> list[dict[str, Any]]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    usage = {"output_tokens": output_tokens}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def stream(events: Iterable[dict[str, Any]], then: Callable[[Exchange], None] | None = None) -> Handler:
    """A handler: an event stream; `then` instead of its proper end."""

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for event in events:
            exchange.send(chunk(sse(event)))
        if then is None:
            exchange.send(b"0\r\n\r\n")
        else:
            then(exchange)

    return answer


def silent(exchange: Exchange) -> None:
    """A handler, or the end of one: nothing more, until the client leaves."""
    exchange.wait_for_end()


def close(exchange: Exchange) -> None:
    """Close the connection without an answer."""
    exchange.close()
