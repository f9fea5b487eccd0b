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
        self._rest = b""
        self._name, self._data = "", list[bytes]()
        self._bytes = self._events = 0

    def read(self, parts: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of each event that has data. Raises `RemoteFailed` beyond a bound."""
        for part in parts:
            self._bytes += len(part)
            if self._bytes > MAX_STREAM or len(self._rest) > MAX_EVENT:
                raise RemoteFailed("The remote agent's stream is longer than it may be.")
            *lines, self._rest = (self._rest + part).replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                if (event := self._line(line.rstrip(b"\r"))) is not None:
                    yield event

    def _line(self, line: bytes) -> tuple[str, bytes] | None:
        """Take a line; return the event that it completes."""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line:
            if field == b"event":
                self._name = value[:64].decode("utf-8", "replace")
            elif field == b"data":
                self._data.append(value)
                if sum(map(len, self._data)) > MAX_EVENT:
                    raise RemoteFailed("The remote agent sent an event that is too large.")
            return None
        name, data = self._name, self._data
        self._name, self._data = "", []
        if not data:
            return None
        self._events += 1
        if self._events > MAX_EVENTS:
            raise RemoteFailed("The remote agent sent too many events.")
        return name, b"\n".join(data)
