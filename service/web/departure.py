"""How an answer leaves: as Gunicorn sends it, but with its head made at once, and sent along with what follows."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache

from gunicorn import util
from gunicorn.http.wsgi import HEADER_VALUE_RE, TOKEN_RE, Response

_LINES = re.compile(rf"(?:{TOKEN_RE.pattern}: {HEADER_VALUE_RE.pattern}\r\n)*")
_OF_THE_CONNECTION = frozenset(util.hop_headers)


class Outgoing(Response):  # type: ignore[misc]
    """One answer on its way to the client."""

    chunked: bool
    headers: Sequence[tuple[str, str]]
    headers_sent: bool
    _head = b""  # what is still to be sent before the body

    def process_headers(self, headers: Sequence[tuple[str, str]]) -> None:
        """Look at all headers together. Raises `InvalidResponseHeader` and `InvalidResponseHeaderName`."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        by_name = {name.lower(): value for name, value in headers}
        if (
            not _LINES.fullmatch(lines)
            or lines.count("\n") != len(headers)
            or not _OF_THE_CONNECTION.isdisjoint(by_name)
        ):
            super().process_headers(headers)  # says what is wrong, or leaves out what is the server's to say
            return
        self.headers = headers
        if (length := by_name.get("content-length")) is not None:
            self.response_length = int(length)

    def send_headers(self) -> None:
        """Not before there is something to send along, or nothing more to come."""
        if self.headers_sent:
            return
        self.headers_sent = True
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\nServer: {self.version}\r\nDate: {_date(int(time.time()))}\r\n"
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n"
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append("\r\n")
        self._head = "".join(lines).encode("latin-1")

    def _emit_body(self, data: bytes) -> None:
        head, self._head = self._head, b""
        self.sock.sendall(head + (b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data))

    def close(self) -> None:
        """Send what is still to be sent: the head of an answer without a body, the end of one in chunks."""
        self.send_headers()
        if self.chunked or self._head:
            self._emit_body(b"")


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    date: str = util.http_date(second)
    return date
