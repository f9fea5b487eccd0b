"""Client of the Messages API over the official SDK; no SDK type or error leaves this module."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import httpx2

from service.errors import ModelError, ModelRejected
from service.llm.batch import BatchState
from service.llm.call_errors import our_errors
from service.llm.client import MAX_BATCH_BYTES, MAX_TEXT, ModelCall, ModelReply, ModelRequest
from service.llm.connect import Origin
from service.llm.message_builder import MessageBuilder
from service.llm.message_params import params_of
from service.llm.messages_client import NONE, PING_SECONDS, MessagesClient, counted
from service.llm.sdk import anthropic, request_of, status_error, transport_to
from service.llm.transport import Waits, carrying
from service.observe import tracing
from service.types import Usage

PROVIDER = "https://api.anthropic.com"
OFFLINE_KEY = "offline"  # the SDK requires a key; the offline model accepts any
NOT_TAKEN = "not_taken"  # stop reason of a batch answer that is unreadable or too long
# Headers that differ from call to call; the others are those of one request that the SDK has made.
OF_EACH_CALL = (b"content-length", b"x-stainless-timeout", b"x-stainless-read-timeout")
HEADERS_OF_EACH_CALL = b"content-length: %d\r\nx-stainless-timeout: %a\r\nx-stainless-read-timeout: %a\r\n"


class ClaudeClient(MessagesClient):
    """`MessagesClient` and `BatchClient` over one shared SDK client, with a key of the API."""

    def __init__(
        self, api_key: str, base_url: str, timeout: float, connect_timeout: float, max_connections: int
    ) -> None:
        super().__init__(transport_to(base_url or PROVIDER, max_connections), timeout, connect_timeout)
        self._sdk = anthropic.Anthropic(
            api_key=api_key or OFFLINE_KEY,
            base_url=base_url or PROVIDER,
            max_retries=0,
            http_client=httpx2.Client(transport=self._transport, trust_env=False),
            default_headers={"Accept-Encoding": "identity"},  # decompression costs more than it saves
            open_telemetry=False,
        )
        self._sdk_request = request_of(self._sdk, "/v1/messages")
        self._request = self._transport.prepare(self._sdk_request, without=OF_EACH_CALL)

    def count(self, fields: Mapping[str, Any], call: ModelCall, headers: Mapping[str, str] = NONE) -> int:
        """Count the tokens of a prompt, given as parameters of the API. Raises as `create` does."""
        messages = cast(Any, self._sdk.messages)
        known = {"model": fields["model"], "messages": fields["messages"], "timeout": self._waits(call)}
        with our_errors(call), carrying(call):
            raw = messages.with_raw_response.count_tokens(**known, extra_body=fields, extra_headers=headers)
            return counted(raw.http_response.content)

    def ping(self) -> None:
        """Raise `ModelUnavailable`, or another `ModelError`, when the model cannot be reached within 2 seconds."""
        call = ModelCall(time.monotonic() + PING_SECONDS)
        try:
            with our_errors(call), carrying(call):
                self._sdk.models.with_raw_response.list(limit=1, timeout=self._waits(call))
        except ModelRejected:
            pass  # reachable: a Messages API need not list models

    def list_models(self) -> list[dict[str, Any]]:
        """List the models that the key may use, as the API describes them: id, lifecycle, limits, capabilities."""
        call = ModelCall(time.monotonic() + self._timeout)
        with our_errors(call), carrying(call):
            return [model.to_dict() for model in self._sdk.models.list(limit=1000, timeout=self._waits(call))]

    def submit(self, requests: Mapping[str, ModelRequest], call: ModelCall) -> str:
        """See `BatchClient`."""
        items = [
            {"custom_id": name, "params": params_of(replace(request, stream=False))}
            for name, request in requests.items()
        ]
        call.progress.billable = True  # until refused
        with our_errors(call), carrying(call):
            create = cast(Any, self._sdk.messages.batches).create
            return str(create(requests=items, timeout=self._waits(call)).id)

    def batch(self, batch_id: str, call: ModelCall) -> BatchState:
        with our_errors(call), carrying(call):
            return _state(self._sdk.messages.batches.retrieve(batch_id, timeout=self._waits(call)))

    def batches_since(self, ms: int, call: ModelCall) -> list[BatchState]:
        found = []
        with our_errors(call), carrying(call):
            for batch in self._sdk.messages.batches.list(limit=100, timeout=self._waits(call)):
                if batch.created_at.timestamp() * 1000 < ms:
                    break  # newest first
                found.append(_state(batch))
        return found

    def results(self, batch_id: str, call: ModelCall) -> Iterator[tuple[str, ModelReply | None]]:
        call.answer_bytes = MAX_BATCH_BYTES
        with our_errors(call), carrying(call):
            for row in self._sdk.messages.batches.results(batch_id, timeout=self._waits(call)):
                result = row.result.to_dict()
                yield row.custom_id, _batched(result)

    def close(self) -> None:
        self._sdk.close()

    def _written(self, body: bytes, headers: bytes, waits: Waits) -> tuple[Origin, bytes]:
        own = HEADERS_OF_EACH_CALL % (len(body), waits.read, waits.read)
        return self._request.origin, self._request.message(body, own + headers)

    def _refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Exception:
        return status_error(self._sdk_request, status, headers, body)


class GatewayUpstream(ClaudeClient):
    """`ClaudeClient` of another Slipway, which goes on in the caller's trace: no provider is told of a trace."""

    def _written(self, body: bytes, headers: bytes, waits: Waits) -> tuple[Origin, bytes]:
        if trace := tracing.traceparent():
            headers += b"traceparent: %b\r\n" % trace.encode()
        return ClaudeClient._written(self, body, headers, waits)


def _state(batch: Any) -> BatchState:
    return BatchState(
        batch.id, sum(batch.request_counts.to_dict().values()), batch.processing_status == "ended"
    )


def _batched(result: dict[str, Any]) -> ModelReply | None:
    """Parse the result of one call of a batch; None: refused, cancelled or expired.

    An unreadable or overlong answer does not stop the others: its content is dropped, its cost is unknown.
    """
    if result["type"] != "succeeded":
        return None
    answer = MessageBuilder(most_text=MAX_TEXT)
    try:
        answer.take_message(result["message"])
        return answer.reply(None, 0.0)
    except ModelError:
        return ModelReply("", [], NOT_TAKEN, Usage(), usage_source="worst")
