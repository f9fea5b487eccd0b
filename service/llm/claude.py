"""Client of the Messages API over the official SDK; no SDK type or error leaves this module."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

import httpx2
import orjson

from service.errors import ModelError, ModelRejected, ModelTimeout
from service.llm.batch import BatchState
from service.llm.call_errors import NEVER_SENT, our_errors
from service.llm.client import (
    MAX_BATCH_BYTES,
    MAX_TEXT,
    CallProgress,
    ModelCall,
    ModelReply,
    ModelRequest,
    TextDelta,
)
from service.llm.message_builder import MessageBuilder
from service.llm.sdk import anthropic, request_of, status_error, transport_to
from service.llm.sse_data import SseData
from service.llm.stream_reader import FEW_STREAMS, StreamReader, StreamSink
from service.llm.tool_names import messages_for_model, tools_for_model
from service.llm.transport import ModelAnswer, Waits, carrying
from service.llm.upstream import unreached
from service.types import Usage

PROVIDER = "https://api.anthropic.com"
NONE: Mapping[str, str] = {}
OFFLINE_KEY = "offline"  # the SDK requires a key; the offline model accepts any
LAST_BYTES_SECONDS = 0.5  # to read the end of the body after the last event
POOL_SECONDS, PING_SECONDS = (
    1.0,
    2.0,
)  # longest waits: a free connection (failing early beats queueing), a ping
COUNTED = ("model", "messages", "system", "tools", "output_config")  # parameters of `count_tokens`
NOT_TAKEN = "not_taken"  # stop reason of a batch answer that is unreadable or too long
# Headers that differ from call to call; the others are those of one request that the SDK has made.
OF_EACH_CALL = (b"content-length", b"x-stainless-timeout", b"x-stainless-read-timeout")
HEADERS_OF_EACH_CALL = b"content-length: %d\r\nx-stainless-timeout: %a\r\nx-stainless-read-timeout: %a\r\n"


class ClaudeClient:
    """`ModelClient` over one shared SDK client: thread-safe, one per process, create it after the fork.

    `timeout` is the longest silence of the model and `connect_timeout` the longest wait for a connection, in seconds;
    both are cut to the time left of the call. Retries nothing.
    """

    def __init__(
        self, api_key: str, base_url: str, timeout: float, connect_timeout: float, max_connections: int
    ) -> None:
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._streams: set[ModelCall] = set()  # open streams
        self._stream_reader = StreamReader()
        self._transport = transport_to(base_url or PROVIDER, max_connections)
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

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]:
        """See `ModelClient`. On every exit `call.progress` holds the reported usage and the text so far."""
        began = time.perf_counter()
        call.progress = CallProgress()
        call.answer_bytes = request.most_bytes
        call.impatient = self._silence(call) < self._timeout
        answer = MessageBuilder(request.model, request.most_text)
        with our_errors(call):
            with closing(self.send(orjson.dumps(_params(request)), call)) as response:
                try:
                    if request.stream:
                        yield from self._relay(response, answer, call)
                    else:
                        answer.take(b"".join(response))
                finally:
                    call.progress.usage, call.progress.text = answer.usage, answer.written
            ms = (time.perf_counter() - began) * 1000
            return answer.reply(response.header(b"request-id"), ms)

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        """Count the request's input tokens with the API's token counter. Raises as `create` does."""
        body = _params(request)
        return self.count({name: body[name] for name in COUNTED if name in body}, call)

    def count(self, fields: Mapping[str, Any], call: ModelCall, headers: Mapping[str, str] = NONE) -> int:
        """Count the tokens of a prompt, given as parameters of the API. Raises as `create` does."""
        messages = cast(Any, self._sdk.messages)
        known = {"model": fields["model"], "messages": fields["messages"], "timeout": self._waits(call)}
        with our_errors(call), carrying(call):
            raw = messages.with_raw_response.count_tokens(**known, extra_body=fields, extra_headers=headers)
            return _counted(raw.http_response.content)

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
            {"custom_id": name, "params": _params(replace(request, stream=False))}
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

    def send(self, body: bytes, call: ModelCall, headers: bytes = b"") -> ModelAnswer:
        """Send a body of `POST /v1/messages`, with further header lines; return its answer once the head is there.

        Closing the answer stops the upstream call.
        """
        waits = self._seconds(call)
        # Billable until refused: after any other failure the model may have done the work.
        call.progress.billable = True
        own = HEADERS_OF_EACH_CALL % (len(body), waits.read, waits.read)
        message = self._request.message(body, own + headers)
        try:
            answer = self._transport.send(self._request.origin, message, call, waits)
        except Exception as error:
            call.progress.billable = not isinstance(error, NEVER_SENT)
            raise unreached(error) from None
        if 200 <= answer.status < 300:
            return answer
        with closing(answer):
            raise status_error(self._sdk_request, answer.status, answer.headers, b"".join(answer))

    def _relay(self, response: ModelAnswer, answer: MessageBuilder, call: ModelCall) -> Iterator[TextDelta]:
        """Yield text as it arrives and add it to the answer; read to the end, so that the connection can be reused.

        Beyond `FEW_STREAMS` open streams, given an `on_text`, the stream-reader thread takes over after the first text.
        """
        self._streams.add(call)
        data, has_text = SseData(), False
        try:
            for chunk in response:
                for event in data.feed(chunk):
                    if text := answer.feed(event):
                        has_text = True
                        yield TextDelta(text)
                if answer.ended:
                    response.wire.drain(LAST_BYTES_SECONDS)
                    return
                if has_text and call.on_text and len(self._streams) > FEW_STREAMS:
                    take = partial(_take, data, answer, call.on_text)
                    self._stream_reader.read(StreamSink(response.wire, call, self._silence(call), take))
                    response.wire.drain(LAST_BYTES_SECONDS)
                    return
        except httpx2.HTTPError:
            if answer.stop_reason is None:
                raise  # after the stop reason, only the end of the stream was missing
        finally:
            self._streams.discard(call)

    def _silence(self, call: ModelCall) -> float:
        return self._timeout if call.silence is None else min(self._timeout, call.silence)

    def _waits(self, call: ModelCall) -> httpx2.Timeout:
        return httpx2.Timeout(**self._seconds(call)._asdict())

    def _seconds(self, call: ModelCall) -> Waits:
        remaining = call.remaining()
        if remaining <= 0:
            raise ModelTimeout("There was no time left to ask the model")
        silence = min(self._silence(call), remaining)
        connect, pool = min(self._connect_timeout, remaining), min(POOL_SECONDS, remaining)
        return Waits(connect, read=silence, write=silence, pool=pool)


def _params(request: ModelRequest) -> dict[str, Any]:
    """Build the arguments of `messages.create`, without sampling parameters: the models refuse them."""
    params: dict[str, Any] = {
        "model": request.model,
        "messages": messages_for_model(request.messages),
        "max_tokens": request.max_tokens,
        "stream": request.stream,
    }
    if request.system:
        params["system"] = request.system if isinstance(request.system, str) else list(request.system)
    if request.tools:
        params["tools"] = tools_for_model(request.tools)
        if not request.may_call_tools:
            params["tool_choice"] = {"type": "none"}  # accepted by every model, with or without thinking
        elif request.must_call_tool:
            params |= {"tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}
    if request.stop_sequences:
        params["stop_sequences"] = list(request.stop_sequences)
    if request.user_id:
        params["metadata"] = {"user_id": request.user_id}
    output: dict[str, Any] = {}
    if request.effort and not request.must_call_tool:  # it is thinking's, whose highest levels need it
        output["effort"] = request.effort
    if request.json_schema is not None:
        output["format"] = {"type": "json_schema", "schema": request.json_schema}
    if output:
        params["output_config"] = output
    return params


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


def _take(data: SseData, answer: MessageBuilder, on_text: Callable[[str], object], chunk: bytes) -> bool:
    """Parse a chunk and publish its text as one piece, up to a faulty event. Returns True after the last event."""
    pieces = []
    try:
        for event in data.feed(chunk):
            pieces.append(answer.feed(event))
    finally:
        if text := "".join(pieces):
            on_text(text)
    return answer.ended


def _counted(body: bytes) -> int:
    """Parse a token count. Raises `ModelError` for one below 1, because a reservation may be based on it."""
    try:
        count = orjson.loads(body)["input_tokens"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("The model sent an answer that cannot be read") from error
    if type(count) is not int or count < 1:
        raise ModelError("The model sent a count that is no number of tokens")
    return count
