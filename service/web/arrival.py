"""What has come of a request, as far as it can be told without waiting for more of it."""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http import errors as http
from gunicorn.http.message import Request, _ip_in_allow_list
from gunicorn.workers.gthread import TConn

from service.web.schemas import MAX_BODY

READ = 65_536  # bytes at once
MOST_HEAD = 32_768  # bytes; with more the parser is left to say what is wrong
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,10})[ \t]*\r\n")
UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade)[ \t]*:")
Environ = dict[str, Any]


class BrokenOff(http.ParseException):  # type: ignore[misc]
    """The body ended before its length was reached."""


class Incoming(Request):  # type: ignore[misc]
    """A request, as Gunicorn reads it."""

    def _peer_is_trusted_proxy(self) -> bool:
        peer = self.peer_addr
        return not isinstance(peer, tuple) or _is_trusted(self.cfg, peer[0])


@lru_cache(maxsize=4096)
def _is_trusted(cfg: Any, address: str) -> bool:
    trusted: bool = _ip_in_allow_list(address, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
    return trusted


class Parser(RequestParser):  # type: ignore[misc]
    mesg_class = Incoming


class Connection(TConn):  # type: ignore[misc]
    """A client's connection, and what has come of its next request."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        self.cfg, self.sock, self.client, self.server = cfg, sock, client, server
        self.initialized = self.is_http2 = False
        self.data_ready = True  # for Gunicorn, which would wait for it otherwise
        self.seen = b""
        self.watched = False  # by the poller
        self.until = 0.0  # time.monotonic(); it may be silent so long
        self.rested = False  # since its last answer nothing has come

    def init(self) -> None:
        self.parser = Parser(self.cfg, self.sock, self.client)
        self.parser.unreader.unread(self.seen)
        self.seen = b""

    def receive(self) -> bool:
        """Take what is there, without waiting. False when the client has gone."""
        try:
            data = self.sock.recv(READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.seen = self.seen + data if self.seen else data
        return bool(data)

    def is_whole(self) -> bool | None:
        """Whether all of a request is there; None: nobody but the parser, reading on, can tell."""
        seen = self.seen
        end = seen.find(b"\r\n\r\n")
        if end < 0:
            return None if len(seen) > MOST_HEAD or (seen and not seen[:1].isalpha()) else False
        head = seen[: end + 2].lower()
        if UNUSUAL.search(head):
            return None
        length = LENGTH.search(head)
        if length is None:
            return None if b"content-length" in head else True
        if int(length[1]) > MAX_BODY:
            return None  # the app refuses it by its length
        return len(seen) - end - 4 >= int(length[1])


def body_of(environ: Environ) -> bytes | None:
    """The request's body, cut one byte beyond the limit; None where it is left unread. Raises `BrokenOff`."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY:
        return None  # the app refuses it by its length
    try:
        body: bytes = environ["wsgi.input"].read(MAX_BODY + 1)
    except http.NoMoreData:
        raise BrokenOff() from None
    if len(body) < length:
        raise BrokenOff()
    return body
