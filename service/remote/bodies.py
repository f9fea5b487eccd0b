"""Bodies of a remote agent's answers: media type, bounded reading, JSON, ends that came too early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from service.errors import RemoteFailed
from service.infra.http import StreamedAnswer
from service.remote.task import AnswerBroken

MAX_BODY = 4 * 1024 * 1024  # bytes of an answer in JSON


def media_type(answer: StreamedAnswer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def ended_early(answer: StreamedAnswer, what: str) -> Exception:
    """Return the error of a stream that ended without its last event.

    Without a length or chunks, as in HTTP/1.0, an end looks the same whether its process was done or was killed.
    """
    framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
    return RemoteFailed(what) if framed else AnswerBroken(what)


def whole(parts: Iterator[bytes]) -> bytes:
    """Read a body to its end. Raises `RemoteFailed` beyond `MAX_BODY`."""
    found = bytearray()
    for part in parts:
        found += part
        if len(found) > MAX_BODY:
            raise RemoteFailed(f"The remote agent's answer is longer than {MAX_BODY} bytes.")
    return bytes(found)


def parsed(data: bytes) -> Any:
    """Parse JSON, which its reader has bounded. Raises `RemoteFailed`."""
    try:
        return orjson.loads(data)
    except ValueError:
        raise RemoteFailed("The remote agent sent JSON that cannot be read.") from None
