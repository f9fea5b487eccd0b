"""Incremental parser for the subset of server-sent events that the Messages API uses: their data."""

from __future__ import annotations

from service.errors import ModelError

MAX_EVENT_BYTES = 16 * 1024 * 1024


class SseData:
    """Parser of server-sent events, for chunks cut anywhere. Event names are ignored: the data carries a type."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of the incomplete line
        self._data: list[bytes] = []  # data lines of the incomplete event
        self._size = 0  # bytes of both

    def feed(self, chunk: bytes) -> list[bytes]:
        """Parse a chunk; return the data of the events it completes. Raises `ModelError` for an oversized event."""
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES + len(chunk):
            raise ModelError("The model sent an event that is too large")
        if b"\n" not in chunk:
            self._rest.append(chunk)
            return []
        lines = b"".join([*self._rest, chunk]).split(b"\n")
        self._rest = [lines.pop()]
        whole, data = list[bytes](), self._data
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:])
            elif data and line in (b"", b"\r"):
                whole.append(data[0] if len(data) == 1 else b"\n".join(data))
                data.clear()
        self._size = sum(map(len, data)) + len(self._rest[0])
        return whole
