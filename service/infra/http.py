"""HTTP client for URLs of others (SSRF protection): public addresses only, no redirects, bounded time and size.

The name is resolved once, all its addresses must be public, and the connection goes to one of these, so that DNS
rebinding gains nothing. Proxies of the environment are not used.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore2

from service.infra.dns import Resolver
from service.infra.ip_ranges import is_public

SECONDS = 5.0  # for the whole exchange, from connecting to the answer's last byte
_PRIVATE = "must be a public address"
_Options = Iterable[Any]


class AddressRefused(Exception):
    """URL with a forbidden address: a retry does not help."""


class NoAnswer(Exception):
    """Raised for an answer that is missing or late. The message is for the user who gave the URL."""


class ConnectionBroken(NoAnswer):
    """Raised when a connection that was made ends before the answer does, as when the server's process is killed."""


def address_fault(url: str, *, allow_private: bool) -> str | None:
    """Validate an `http` or `https` URL without a look-up; return its fault, or None."""
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        return "must be ASCII without blanks"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is not an http or https URL"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password"
    if port is not None and not _port_allowed(port):
        return "must use port 80, 443 or one from 1024"
    return None if allow_private else _private_name(parts.hostname.rstrip("."))


class Answer(NamedTuple):
    status: int
    body: bytes


class StreamedAnswer(NamedTuple):
    """Answer under way. `headers` by name in small letters; `parts` are the pieces of the body, as sent."""

    status: int
    headers: Mapping[str, str]
    parts: Iterator[bytes]


class Control:
    """Control of one exchange, from any thread. `silence`: the most seconds of one read."""

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """End the exchange: before it connects, before its answer, or while that is read."""
        with self._lock:
            self._aborted = True
            self._shut_down()

    def hold(self, stream: httpcore2.NetworkStream) -> None:
        """Take a new connection, or the same one within TLS, which has a socket of its own."""
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            if self._aborted:
                self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class SafeClient:
    """Thread-safe client for URLs of users and other services; each connection is used once.

    `allow_private` also allows this machine and its network: for tests, and for hosts that the operator has chosen.
    """

    def __init__(self, *, allow_private: bool, seconds: float = SECONDS) -> None:
        self._allow_private = allow_private
        self._seconds = seconds
        self._resolver = Resolver()
        self._context: ssl.SSLContext | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a POST and return the status; the body is not read. Raises `AddressRefused` or `NoAnswer`."""
        return self.exchange("POST", url, headers, body).status

    def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, most: int = 0
    ) -> Answer:
        """Send a request, and read at most `most` bytes of the answer's body.

        Raises `AddressRefused`, or `NoAnswer`, also for a longer body.
        """
        with self.stream(method, url, headers, body) as answer:
            return Answer(answer.status, _read(answer.parts, most) if most else b"")

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float | None = None,
        control: Control | None = None,
    ) -> Iterator[StreamedAnswer]:
        """Send a request, and give its answer once the head has arrived; its body is read by iteration.

        `seconds`: for this exchange, to the last byte read; at most the client's own. Raises
        `AddressRefused` or `NoAnswer`, also while the body is read, and after `control.abort()`.
        """
        if wrong := address_fault(url, allow_private=self._allow_private):
            raise AddressRefused(f"The address {wrong}.")
        seconds = min(self._seconds, seconds or self._seconds)
        extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}
        if self._context is None:  # takes 40 ms, so it is shared
            self._context = ssl.create_default_context()
        backend = _PublicOnly(self._resolver, self._allow_private, seconds, control or Control(seconds))
        try:
            with (
                httpcore2.ConnectionPool(self._context, network_backend=backend) as pool,
                pool.stream(
                    method, url, headers=list(headers.items()), content=body, extensions=extensions
                ) as answer,
            ):
                head = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers
                }
                yield StreamedAnswer(int(answer.status), head, answer.iter_stream())
        except (httpcore2.TimeoutException, TimeoutError):
            raise NoAnswer(f"No answer within {seconds:g} s.") from None
        except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError) as error:
            raise ConnectionBroken(f"No answer ({type(error).__name__}).") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, UnicodeError) as error:
            raise NoAnswer(f"No answer ({type(error).__name__}).") from None


def _read(parts: Iterator[bytes], most: int) -> bytes:
    found = bytearray()
    for part in parts:
        found += part
        if len(found) > most:
            raise NoAnswer(f"The answer is longer than {most} bytes.")
    return bytes(found)


class _PublicOnly(httpcore2.SyncBackend):
    """Network backend for public addresses, with one deadline of `seconds` for the whole exchange."""

    def __init__(self, resolver: Resolver, allow_private: bool, seconds: float, control: Control) -> None:
        self._resolver = resolver
        self._allow_private = allow_private
        self._seconds = seconds
        self._control = control

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options | None = None,
    ) -> httpcore2.NetworkStream:
        deadline = time.monotonic() + self._seconds
        addresses = self._addresses(host, port)
        for address in addresses:
            try:
                stream = super().connect_tcp(
                    address, port, _remaining(deadline), local_address, socket_options
                )
                self._control.hold(stream)
                return _Timed(stream, deadline, self._control)
            except httpcore2.ConnectError:  # such as IPv6 on a machine without it
                if address == addresses[-1]:
                    raise
        raise httpcore2.ConnectError("The name has no address.")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: _Options | None = None
    ) -> httpcore2.NetworkStream:
        raise AddressRefused("Sockets of this machine are not for users.")

    def _addresses(self, host: str, port: int) -> list[str]:
        found = self._resolver.addresses(host, port, self._seconds)
        addresses = list(dict.fromkeys(str(address[0]) for _, address in found))
        if not self._allow_private and not all(map(is_public, addresses)):
            raise AddressRefused(f"The address {_PRIVATE}.")
        return addresses


class _Timed(httpcore2.NetworkStream):
    """Stream with a deadline (time.monotonic()) for all its operations."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float, control: Control) -> None:
        self._stream = stream
        self._deadline = deadline
        self._control = control

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, min(self._control.silence, _remaining(self._deadline)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(self._deadline))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _remaining(self._deadline))
        self._control.hold(secured)
        return _Timed(secured, self._deadline, self._control)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _private_name(host: str) -> str | None:
    if host == "localhost" or host.endswith(".localhost"):
        return _PRIVATE
    address = _literal(host)
    return _PRIVATE if address is not None and not is_public(address) else None


def _literal(host: str) -> str | None:
    """Parse an IP address, also in the forms that the C library accepts, as `0x7f.1`; None: a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _port_allowed(port: int) -> bool:
    """Allow 80, 443 and unprivileged ports: no mail server or other system service."""
    return port in (80, 443) or port >= 1024


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
