"""Bedrock, Mantle and Vertex AI on loopback: they verify credentials as the real ones do, and speak their framings."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.llm.wire_server import Exchange, Handler, chunk, head, whole

REGION, ACCESS, SECRET = "us-east-1", "AKIDEXAMPLE", "wJalrXUtnFEMI"
AWS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
NOT_SIGNED = whole({"message": "The request signature does not match"}, 403)


def is_signed(exchange: Exchange, service: str = "bedrock") -> bool:
    """Sign what arrived once more for an AWS service, with the same date, and compare."""
    method, path, _ = exchange.head.decode().split("\r\n")[0].split(" ")
    given = exchange.headers
    scheme, _, rest = given.get("authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        return False
    names = rest.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(names)
    request = AWSRequest(
        method, f"http://{given['host']}{path}", {n: given[n] for n in names}, data=exchange.body
    )
    request.context["timestamp"] = given["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS, SECRET), service, REGION)
    string = signer.string_to_sign(request, signer.canonical_request(request))
    return rest.endswith(f"Signature={signer.signature(string, request)}")


def signed(handler: Handler, service: str = "bedrock") -> Handler:
    """A handler that refuses what is not signed."""
    return lambda exchange: (handler if is_signed(exchange, service) else NOT_SIGNED)(exchange)


def frame(payload: bytes, **headers: str) -> bytes:
    """One message of an AWS event stream."""
    told = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(told) + len(payload), len(told))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(event: dict[str, Any]) -> bytes:
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abcd"})
    names = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}
    return frame(payload.encode(), **names)


def exception(kind: str) -> bytes:
    return frame(b'{"message": "UPSTREAM WORDS"}', **{":message-type": "exception", ":exception-type": kind})


def aws_stream(
    events: Iterable[dict[str, Any] | bytes],
    then: Callable[[Exchange], None] | None = None,
    size: int = 1_000_000,
) -> Handler:
    """A handler: an event stream in chunks of `size` bytes; `then` instead of its proper end."""
    data = b"".join(one if isinstance(one, bytes) else event(one) for one in events)

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: application/vnd.amazon.eventstream\r\n"))
        for at in range(0, len(data), size):
            exchange.send(chunk(data[at : at + size]))
        if then is None:
            exchange.send(b"0\r\n\r\n")
        else:
            then(exchange)

    return answer
