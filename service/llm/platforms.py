"""Claude at other providers: Amazon Bedrock, Bedrock Mantle and Google Vertex AI, by the official SDK's clients.

The SDK writes and signs each request; it is sent by our own transport, under the time-outs and the abort of its call.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import httpx2
import orjson

from service.errors import ModelKeyRefused, ModelRejected
from service.llm.aws_stream import AwsEventStream
from service.llm.call_errors import our_errors
from service.llm.client import ModelCall
from service.llm.connect import Origin
from service.llm.messages_client import NONE, PING_SECONDS, MessagesClient, counted
from service.llm.sdk import message_of, status_error, transport_to
from service.llm.transport import ModelAnswer, Waits
from service.llm.upstream import unreached

log = logging.getLogger("slipway.model")
JSON = {"content-type": "application/json"}
HEADERS = {"Accept-Encoding": "identity"}
MODEL_ERROR = 424  # Bedrock: the model failed, which is a server's error
UNKNOWN = httpx2.Request("POST", "http://provider.invalid")


class PlatformClient(MessagesClient):
    """`MessagesClient` over a platform's SDK client. `ids`: the platform's ids by Slipway's names of models.

    `default_id` makes the id of any other model from its name.
    """

    def __init__(
        self,
        sdk: Any,
        ids: Mapping[str, str],
        timeout: float,
        connect_timeout: float,
        max_connections: int,
        default_id: str = "{}",
    ) -> None:
        super().__init__(transport_to(str(sdk.base_url), max_connections), timeout, connect_timeout)
        self._sdk = sdk
        self._ids, self._default_id = ids, default_id
        self._first, self._has_credentials = threading.Lock(), False

    def count(self, fields: Mapping[str, Any], call: ModelCall, headers: Mapping[str, str] = NONE) -> int:
        waits = self._seconds(call)
        with our_errors(call):
            request = self._request("/v1/messages/count_tokens", self._named(fields), headers, waits)
            return counted(self._fetched(request, call, waits))

    def ping(self) -> None:
        """Raise `ModelUnavailable` when the platform does not answer; any answer below 500 is one."""
        call = ModelCall(time.monotonic() + PING_SECONDS)
        waits = self._seconds(call)
        try:
            with our_errors(call):
                self._fetched(httpx2.Request("GET", self._sdk.base_url, headers=HEADERS), call, waits)
        except (ModelRejected, ModelKeyRefused):
            pass

    def close(self) -> None:
        self._transport.close()

    def _written(self, body: bytes, headers: bytes, waits: Waits) -> tuple[Origin, bytes]:
        more = dict(line.split(": ", 1) for line in headers.decode("iso-8859-1").split("\r\n") if line)
        request = self._request("/v1/messages", self._named(orjson.loads(body)), more, waits)
        return self._message(request)

    def _message(self, request: httpx2.Request) -> tuple[Origin, bytes]:
        head = self._transport.prepare(request)
        return head.origin, head.message(request.read())

    def _named(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with the platform's id of their model."""
        model = str(fields["model"])
        return {**fields, "model": self._ids.get(model) or self._default_id.format(model)}

    def _request(
        self, path: str, fields: dict[str, Any] | bytes, headers: Mapping[str, str], waits: Waits
    ) -> httpx2.Request:
        """Let the SDK write and sign a request. Raises `ModelKeyRefused` where it has no credentials."""
        options = {"headers": dict(headers), "timeout": httpx2.Timeout(**waits._asdict())}
        try:
            if self._has_credentials:
                return message_of(self._sdk, path, fields, options)
            with self._first:  # a session of boto3 is not thread-safe until it has found its credentials
                request = message_of(self._sdk, path, fields, options)
                self._has_credentials = True
                return request
        except (ValueError, TypeError, RecursionError):
            raise
        except Exception as error:  # of botocore, google-auth or the SDK, whose words may name accounts
            log.warning("provider_credentials_failed", extra={"error": type(error).__name__})
            raise ModelKeyRefused("There are no credentials for the model's provider") from None

    def _fetched(self, request: httpx2.Request, call: ModelCall, waits: Waits) -> bytes:
        """Send a request that costs nothing; return the body of its answer."""
        origin, message = self._message(request)
        try:
            answer = self._transport.send(origin, message, call, waits)
        except httpx2.HTTPError as error:
            raise unreached(error) from None
        with closing(answer):
            if 200 <= answer.status < 300:
                return b"".join(answer)
            raise self._refusal(answer.status, answer.headers, answer.of_error())

    def _refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Exception:
        return status_error(UNKNOWN, status, headers, body)


class BedrockClient(PlatformClient):
    """Claude at Amazon Bedrock (`bedrock-runtime`), whose streams are AWS event streams."""

    def count(self, fields: Mapping[str, Any], call: ModelCall, headers: Mapping[str, str] = NONE) -> int:
        """Count by Bedrock's CountTokens, which takes the body of a call. The SDK has no method for it."""
        waits = self._seconds(call)
        with our_errors(call):
            asked = self._request("/v1/messages", self._named({"max_tokens": 1, **fields}), headers, waits)
            path = asked.url.raw_path.decode("ascii").rpartition("/")[0] + "/count-tokens"
            body = {"input": {"invokeModel": {"body": base64.b64encode(asked.read()).decode()}}}
            request = self._request(path, orjson.dumps(body), JSON, waits)
            return counted(self._fetched(request, call, waits), "inputTokens")

    def _readable(self, answer: ModelAnswer) -> ModelAnswer:
        if (answer.header(b"content-type") or "").startswith("application/vnd.amazon.eventstream"):
            answer.decode = AwsEventStream().feed
        return answer

    def _refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Exception:
        status = 500 if status == MODEL_ERROR else status
        return status_error(UNKNOWN, status, headers, body)
