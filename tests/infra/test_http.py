"""Posting to addresses that users name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.infra.http import AddressRefused, NoAnswer, SafeClient, address_fault
from service.infra.ip_ranges import is_public

TRICKS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:8931/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::a00:1]/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://10.0.0.1/",
    "http://172.16.5.4/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.88.99.1/",
    "http://0xa83f8110/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[2002:a00:1::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
]
MALFORMED = [
    "ftp://example.com/",
    "http://",
    "http:///path",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com:22/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://exa mple.com/",
    "https://example.com/\r\nX-Evil: 1",
    "https://exämple.com/",
    "https://[::1/",
]


@pytest.mark.parametrize("url", TRICKS)
def test_addresses_of_our_own_are_refused_before_anything_is_sent(url: str) -> None:
    assert address_fault(url, allow_private=False) == "must be a public address"
    with pytest.raises(AddressRefused):
        SafeClient(allow_private=False).post(url, b"{}", {})


@pytest.mark.parametrize("url", MALFORMED)
def test_non_web_address_is_refused(url: str) -> None:
    assert address_fault(url, allow_private=True) is not None
    with pytest.raises(AddressRefused):
        SafeClient(allow_private=True).post(url, b"{}", {})


def test_public_addresses_are_fine() -> None:
    for url in ("https://example.com/hook?a=b", "http://93.184.216.34:8080/", "https://[2606:4700::1111]/"):
        assert address_fault(url, allow_private=False) is None
    assert is_public("93.184.216.34") and is_public("2606:4700::1111")


def test_a_name_that_means_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        private = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port)), private]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(AddressRefused):
        SafeClient(allow_private=False).post("https://rebound.example/", b"{}", {})
    assert asked == ["rebound.example"]


def test_a_name_that_means_nothing_may_be_tried_again() -> None:
    with pytest.raises(NoAnswer):
        SafeClient(allow_private=True, seconds=1).post("http://nobody.invalid/", b"{}", {})


def _request(connection: socket.socket) -> bytes:
    """Head and body, in however many pieces they come."""
    got = b""
    while piece := connection.recv(65_536):
        got += piece
        head, end, body = got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0):
            break
    return got


class Peer:
    """Answers every connection with the same bytes, piece by piece."""

    def __init__(self, *pieces: bytes, pause: float = 0.0) -> None:
        self._pieces, self._pause = pieces, pause
        self._over = threading.Event()
        self.got: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with closing(connection):
                self.got.append(_request(connection))
                try:
                    for piece in self._pieces:
                        connection.sendall(piece)
                        self._over.wait(self._pause)
                except OSError:
                    pass

    def close(self) -> None:
        self._over.set()
        self._server.close()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


def test_the_status_comes_back_and_nothing_else_is_read(peers: list[Peer]) -> None:
    peers.append(Peer(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert SafeClient(allow_private=True).post(peers[0].url, b"hello", {"X-One": "1"}) == 204
    assert b"X-One: 1" in peers[0].got[0] and peers[0].got[0].endswith(b"hello")
    peers.append(Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", b"x" * 1000))
    assert SafeClient(allow_private=True).post(peers[1].url, b"", {}) == 200


def test_redirects_are_not_followed(peers: list[Peer]) -> None:
    peers.append(Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    peers.append(
        Peer(b"HTTP/1.1 307 X\r\nLocation: " + peers[0].url.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    )
    assert SafeClient(allow_private=True).post(peers[1].url, b"", {}) == 307
    assert peers[0].got == []


@pytest.mark.parametrize(
    "pieces,pause",
    [
        ((b"HTTP/1.1 200 OK\r\n", b"X", *[b"-"] * 50), 0.1),  # a byte now and then, for ever
        ((b"",), 30.0),
        ((b"not http at all\r\n\r\n",), 0.0),
        ((), 0.0),
    ],
    ids=["trickles", "silent", "garbage", "closes"],
)
def test_a_peer_that_misbehaves_is_given_up(
    peers: list[Peer], pieces: tuple[bytes, ...], pause: float
) -> None:
    peers.append(Peer(*pieces, pause=pause))
    with pytest.raises(NoAnswer):
        SafeClient(allow_private=True, seconds=0.5).post(peers[0].url, b"", {})


def test_refused_connection_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    with pytest.raises(NoAnswer):
        SafeClient(allow_private=True).post(url, b"", {})


def test_a_proxy_of_the_environment_is_not_asked(peers: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    peers.append(Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    peers.append(Peer(b"HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n"))
    monkeypatch.setenv("http_proxy", peers[1].url)
    assert SafeClient(allow_private=True).post(peers[0].url, b"", {}) == 200
