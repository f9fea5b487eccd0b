"""Connections to the model: name look-up, TCP, optional HTTP proxy and TLS, under one overall time-out.

No part of a request is sent here, so a failed attempt costs nothing and can always be retried.
"""

from __future__ import annotations

import base64
import socket
import ssl
import time
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import httpx2

from service.infra.dns import Resolver, SocketAddress
from service.llm.client import ModelCall

TCP_OPTIONS = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 5}
MAX_PROXY_HEAD = 16 * 1024


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx2.URL) -> Origin:
        return cls(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))


class Proxy(NamedTuple):
    """HTTP proxy. `authorization` is the value of its Proxy-Authorization header, empty for none."""

    host: str
    port: int
    authorization: str = ""

    @classmethod
    def of(cls, url: str) -> Proxy:
        """Parse an address such as `http://user:password@host:3128`. Raises `ValueError` for another scheme."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("The proxy for the model's address must be an http:// URL")
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {base64.b64encode(user).decode()}" if parts.username else ""
        return cls(parts.hostname, parts.port or 80, authorization)


class Connector:
    """Connector to the model; thread-safe, created after the fork. Aborting `call` ends every wait."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy
        self._resolver = Resolver()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()  # system root certificates, as in the SDK's own transport

    def connect(self, origin: Origin, call: ModelCall, wait: float) -> socket.socket:
        """Open a connection ready for a request. Raises httpx2's connect errors within `wait` seconds."""
        deadline = time.monotonic() + min(wait, call.remaining())
        peer = self._proxy or origin
        try:
            addresses = self._resolver.addresses(peer.host, peer.port, _left(deadline), lambda: call.aborted)
            sock = _first_that_connects(addresses, call, deadline)
        except OSError as error:
            raise _connect_error(error) from error
        try:
            return self._secured(sock, origin, call, deadline)
        except OSError as error:
            raise _connect_error(error) from error

    def _secured(
        self, sock: socket.socket, origin: Origin, call: ModelCall, deadline: float
    ) -> socket.socket:
        """Tunnel through the proxy and start TLS; close the socket on failure."""
        try:
            _tune(sock)
            if origin.scheme == "https":
                if self._proxy is not None:
                    _tunnel(sock, self._proxy, origin, deadline)
                sock.settimeout(_left(deadline))
                sock = self._tls.wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)
                call.attach(sock)
                sock.do_handshake()
            return sock
        except BaseException:
            call.detach()
            sock.close()
            raise


def _first_that_connects(addresses: list[SocketAddress], call: ModelCall, deadline: float) -> socket.socket:
    """Try the addresses in turn; a dead one uses up only an equal share of the remaining time."""
    failed: OSError = OSError("The name has no address")
    for tried, (family, address) in enumerate(addresses):
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)  # fails on hosts without IPv6
            sock.settimeout(_left(deadline) / (len(addresses) - tried))
            call.attach(sock)
            if call.aborted:
                raise ConnectionAbortedError("The call was aborted")
            sock.connect(address)
            return sock
        except OSError as error:
            failed = error
            if sock is not None:
                call.detach()
                sock.close()
    raise failed


def _tunnel(sock: socket.socket, proxy: Proxy, origin: Origin, deadline: float) -> None:
    """Open a CONNECT tunnel to the origin. Raises httpx2's `ProxyError` when the proxy refuses."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.settimeout(_left(deadline))
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        sock.settimeout(_left(deadline))
        byte = sock.recv(1)  # byte by byte: data after the head belongs to the origin
        head += byte
        if not byte or len(head) > MAX_PROXY_HEAD:
            raise httpx2.ProxyError("The proxy did not answer")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise httpx2.ProxyError("The proxy refused a connection to the model")


def _left(deadline: float) -> float:
    """Return the seconds left, above 0, since a socket takes 0 for non-blocking. Raises `TimeoutError`."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("The connection took too long")
    return remaining


def _tune(sock: socket.socket) -> None:
    """Set TCP_NODELAY, and keep-alive probes that detect a dead peer while the model thinks for minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if hasattr(socket, name):  # option names differ between Linux and macOS
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect_error(error: OSError) -> httpx2.TransportError:
    if isinstance(error, TimeoutError):
        return httpx2.ConnectTimeout("The model's address did not answer in time")
    return httpx2.ConnectError("The model's address cannot be reached")
