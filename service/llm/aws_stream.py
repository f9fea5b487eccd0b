"""Bedrock's binary event stream, translated to the server-sent events of the Messages API."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from service.llm.wire import AnswerRefused

# Error frames of `invoke-with-response-stream`, as error types of the Messages API; any other is an `api_error`.
ERRORS: Mapping[str, str] = {
    "throttlingException": "rate_limit_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
    "validationException": "invalid_request_error",
}


class AwsEventStream:
    """Decoder of one stream, for chunks cut anywhere. Checksums and sizes are verified by botocore."""

    def __init__(self) -> None:
        # imported late: boto3 is installed only where Bedrock is a provider
        from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]

        self._buffer: Any = EventStreamBuffer()

    def feed(self, chunk: bytes) -> bytes:
        """Decode a chunk; return the events it completes. Raises `AnswerRefused` for one that cannot be read."""
        from botocore.eventstream import ParserError

        self._buffer.add_data(chunk)
        try:
            return b"".join([_as_sse(message) for message in self._buffer])
        except (ParserError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AnswerRefused("The model sent an event that cannot be read") from error


def _as_sse(message: Any) -> bytes:
    """Write one frame as a server-sent event; its data are the bytes that the model sent."""
    headers = message.headers
    if headers.get(":message-type", "event") != "event":
        kind = headers.get(":exception-type") or headers.get(":error-code") or ""
        error = {
            "type": ERRORS.get(str(kind), "api_error"),
            "message": "The model's provider reports an error",
        }
        return _event(b"error", orjson.dumps({"type": "error", "error": error}))
    if headers.get(":event-type") != "chunk":
        return b""
    data = base64.b64decode(orjson.loads(message.payload)["bytes"], validate=True)
    kind = orjson.loads(data)["type"]
    if not isinstance(kind, str) or b"\n" in data:
        raise ValueError("no event of the Messages API")
    return _event(kind.encode(), data)


def _event(kind: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind, data)
