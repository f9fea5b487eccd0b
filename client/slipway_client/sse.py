"""Server-sent events: an incremental parser of the WHATWG format, with a bounded buffer."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from slipway_client.errors import UnexpectedAnswer

MAX_BUFFER = 16 * 1024 * 1024  # characters of one event
LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Message:
    """One block. `id` is None where it has none."""

    event: str
    data: str
    id: str | None


class Parser:
    """Parser of one connection: an event that the connection cuts is never returned."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._buffer = ""
        self._size = 0  # characters of the block so far
        self._lines: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that `chunk` completes. Raises `UnexpectedAnswer` for one without an end."""
        self._buffer += self._decode(chunk)
        for line in self._whole_lines():
            if not line:
                block, self._lines, self._size = self._lines, [], 0
                if message := _message(block):
                    yield message
            elif not line.startswith(":"):
                self._size += len(line)
                self._lines.append(line)
        if self._size + len(self._buffer) > MAX_BUFFER:
            raise UnexpectedAnswer(f"An event has more than {MAX_BUFFER} characters.")

    def _whole_lines(self) -> list[str]:
        # A final "\r" may be the first half of "\r\n".
        held = "\r" if self._buffer.endswith("\r") else ""
        *lines, rest = LINE_END.split(self._buffer.removesuffix(held) if held else self._buffer)
        self._buffer = rest + held
        return lines


def _message(lines: list[str]) -> Message | None:
    """Build a message of the lines of a block; None without data, which the format says to drop."""
    fields: dict[str, str] = {}
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        else:
            fields[name] = value
    if not data:
        return None
    return Message(fields.get("event", "message"), "\n".join(data), fields.get("id"))
