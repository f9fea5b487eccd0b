"""Server-sent events of another service: parsed as they arrive, bounded in size and number."""

from __future__ import annotations

from collections.abc import Iterator

from service.errors import RemoteFailed

MAX_EVENT = 2 * 1024 * 1024  # bytes of one event
MAX_STREAM = 32 * 1024 * 1024  # bytes of a stream
MAX_EVENTS = 100_000


class ServerSentEvents:
    """Parser of one stream (WHATWG HTML, 9.2.6): names and data; ids, retries and comments mean nothing here."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._name, self._data = "", list[bytes]()
        self._bytes = self._events = self._size = 0

    def read(self, parts: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of each event that has data. Raises `RemoteFailed` beyond a bound."""
        for part in parts:
            self._bytes += len(part)
            if self._bytes > MAX_STREAM:
                raise RemoteFailed("The remote agent's stream is longer than it may be.")
            first, *others = part.split(b"\n")  # each piece is read once, however small
            self._rest += first
            for begun in others:
                line, self._rest = bytes(self._rest).rstrip(b"\r"), bytearray(begun)
                if (event := self._line(line)) is not None:
                    yield event
            if len(self._rest) > MAX_EVENT:
                raise RemoteFailed("The remote agent sent an event that is too large.")

    def _line(self, line: bytes) -> tuple[str, bytes] | None:
        """Take a line; return the event that it completes."""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line:
            if field == b"event":
                self._name = value[:64].decode("utf-8", "replace")
            elif field == b"data":
                self._data.append(value)
                self._size += len(value) + 1
                if self._size > MAX_EVENT:
                    raise RemoteFailed("The remote agent sent an event that is too large.")
            return None
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        self._events += 1
        if self._events > MAX_EVENTS:
            raise RemoteFailed("The remote agent sent too many events.")
        return name, b"\n".join(data)
