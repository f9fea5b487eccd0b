"""WebSockets of tests: a client of the library, and a plain one that sends whatever it likes."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import Slipway

LAST = ("run.completed", "run.failed", "run.cancelled", "error")
QUICK = {"input": "How do I get a refund?", "cache": "bypass"}
SLOW = {"input": "[offline tokens=200 token_ms=50] A long answer, please.", "cache": "bypass"}
Told = dict[str, Any]


def bearer(client: httpx2.Client) -> dict[str, str]:
    return {"Authorization": client.headers["Authorization"]}


def path_of(agent: str = "assistant") -> str:
    return f"/v1/agents/{agent}/chat"


class Chat(NamedTuple):
    """A WebSocket that speaks JSON."""

    socket: ClientConnection

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def next(self, seconds: float = 30) -> Told:
        told: Told = json.loads(self.socket.recv(timeout=seconds))
        return told

    def until(self, *names: str) -> list[Told]:
        """Events up to the first with one of these names."""
        told = [self.next()]
        while told[-1]["event"] not in names:
            told.append(self.next())
        return told

    def ask(self, **message: Any) -> Told:
        """The last event of a turn."""
        self.say(**message)
        return self.until(*LAST)[-1]

    def code(self, seconds: float = 30) -> tuple[int, str]:
        """The close code and its reason, after whatever else comes."""
        try:
            while True:
                self.socket.recv(timeout=seconds)
        except ConnectionClosed as closed:
            sent = closed.rcvd
            return (0, "") if sent is None else (sent.code, sent.reason)


@contextmanager
def chatting(url: str, headers: dict[str, str], agent: str = "assistant", **options: Any) -> Iterator[Chat]:
    address = url.replace("http", "ws", 1) + path_of(agent)
    with connect(address, additional_headers=headers, proxy=None, open_timeout=30, **options) as opened:
        yield Chat(opened)


class Plain:
    """A socket after its handshake, for frames that no library sends."""

    def __init__(self, server: Slipway, headers: dict[str, str], read_buffer: int = 65_536) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(30)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        self.sock.connect(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": f"127.0.0.1:{server.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.sock.sendall(f"GET {path_of()} HTTP/1.1\r\n{head}\r\n".encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self._more()
        answer, _, self.data = self.data.partition(b"\r\n\r\n")
        self.status = int(answer.split()[1])
        self.head = answer.decode().lower()

    def _more(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise EOFError
        self.data += data

    def send(
        self, opcode: int, data: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0
    ) -> None:
        self.sock.sendall(frame(opcode, data, fin=fin, mask=mask, rsv=rsv))

    def frame(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame. Raises EOFError."""
        while True:
            if len(self.data) >= 2:
                size, start = self.data[1] & 127, 2
                if size > 125:
                    start = 4 if size == 126 else 10
                    if len(self.data) >= start:
                        size = int.from_bytes(self.data[2:start], "big")
                if len(self.data) >= start + size:
                    opcode, payload = self.data[0] & 15, self.data[start : start + size]
                    self.data = self.data[start + size :]
                    return opcode, payload
            self._more()

    def code(self) -> int:
        """The close code, after whatever else comes; 0 for an end without one."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == 8:
                    return int(struct.unpack("!H", payload[:2])[0])
        except (EOFError, ConnectionError):
            return 0

    def close(self) -> None:
        self.sock.close()


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """Encode a frame; masked with zeros, so that the payload stays as it is."""
    size = len(data)
    if size < 126:
        length = struct.pack("!B", size | mask << 7)
    elif size < 65_536:
        length = struct.pack("!BH", 126 | mask << 7, size)
    else:
        length = struct.pack("!BQ", 127 | mask << 7, size)
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + (bytes(4) if mask else b"") + data
