"""DNS server on loopback for one name with changeable addresses."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

LONG_TTL = 600  # what Docker's own server says: an address is good for ten minutes, and is not


class NameServer:
    """Answer every question for an A record with `addresses`; `silent`: with nothing at all."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self.addresses = list(addresses)
        self.silent = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                question, client = self._socket.recvfrom(512)
                if not self.silent:
                    self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        """RFC 1035, section 4: header, the question again, and a record for each address."""
        end = question.index(b"\0", 12) + 5  # the name ends with a zero; type and class follow
        addresses = list(self.addresses)
        flags = 0x8180 if addresses else 0x8183  # an answer; or: there is no such name
        header = question[:2] + struct.pack("!5H", flags, 1, len(addresses), 0, 0)
        records = (
            struct.pack("!HHHIH", 0xC00C, 1, 1, LONG_TTL, 4) + socket.inet_aton(address)
            for address in addresses
        )
        return header + question[12:end] + b"".join(records)
