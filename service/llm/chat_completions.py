"""Client of an upstream in OpenAI's dialect: Chat Completions and Responses, relayed as they are.

The answer is read on its way for its usage. A stream is asked for usage where its caller did not, and the chunk that
brings it is then kept back.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import httpx2

from service.errors import ModelError, ModelKeyRefused, ModelRejected, PromptTooLong, SlipwayError
from service.llm.call_errors import NEVER_SENT, our_errors
from service.llm.chat_answer import ChatAnswer
from service.llm.client import CallProgress, ModelCall, ModelReply, ModelRequest
from service.llm.messages_client import LAST_BYTES_SECONDS, PING_SECONDS, POOL_SECONDS
from service.llm.model_json import parse
from service.llm.relay import ChatRequest, ResponsesRequest
from service.llm.responses_answer import ResponsesAnswer
from service.llm.sdk import transport_to
from service.llm.sse_data import SseData
from service.llm.transport import ModelAnswer, PreparedRequest, Waits
from service.llm.upstream import refused, unreached

PATH, RESPONSES = "/chat/completions", "/responses"
TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length"})  # error codes
NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class ChatCompletionsClient:
    """`ModelClient` whose `create` takes a `ChatRequest`, or one of Responses, and yields the answer's bytes.

    Thread-safe, one per process. `timeout` is the longest silence of the upstream and `connect_timeout` the longest
    wait for a connection, in seconds; both are cut to the time left of the call. Retries nothing.
    """

    def __init__(
        self, base_url: str, api_key: str, timeout: float, connect_timeout: float, max_connections: int
    ) -> None:
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._transport = transport_to(base_url, max_connections)
        self.places = self._transport.places
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._chat, self._responses = (
            self._transport.prepare(
                httpx2.Request("POST", base_url + path, headers=headers),
                without=(b"content-length",),  # each call has its own
            )
            for path in (PATH, RESPONSES)
        )
        self._ping = self._transport.prepare(httpx2.Request("GET", f"{base_url}/models", headers=headers))

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[Any, None, ModelReply]:
        assert isinstance(request, ChatRequest)
        began = time.perf_counter()
        call.progress = CallProgress()
        call.answer_bytes = request.most_bytes
        head, answer = self._chat, _reader(request, call)
        if isinstance(request, ResponsesRequest):
            head = self._responses
        with our_errors(call), closing(self._send(head, request.body, call)) as response:
            if request.stream:
                yield from _chunks(response, answer, tells_usage=request.tells_usage)
            else:
                body = b"".join(response)
                answer.take(body)
                yield body
            ms = (time.perf_counter() - began) * 1000
            return answer.reply(response.request_id, ms)

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        """Return the most that a prompt of the model can have: the dialect has no counter."""
        assert isinstance(request, ChatRequest)
        return request.context_tokens

    def ping(self) -> None:
        """Raise `ModelUnavailable` when the upstream does not answer; any answer below 500 is one."""
        call = ModelCall(time.monotonic() + PING_SECONDS)
        try:
            with our_errors(call):
                answer = self._answer(self._ping.message(b""), call)
                answer.close()
        except (ModelRejected, ModelKeyRefused):
            pass

    def close(self) -> None:
        self._transport.close()

    def _send(self, head: PreparedRequest, body: bytes, call: ModelCall) -> ModelAnswer:
        call.progress.billable = True  # until refused
        return self._answer(head.message(body, b"Content-Length: %d\r\n" % len(body)), call)

    def _answer(self, message: bytes, call: ModelCall) -> ModelAnswer:
        """Send a request; return its answer once the head is there. Raises what the upstream refuses."""
        try:
            answer = self._transport.send(self._chat.origin, message, call, self._waits(call))
        except Exception as error:
            call.progress.billable = call.progress.billable and not isinstance(error, NEVER_SENT)
            raise unreached(error) from None
        if 200 <= answer.status < 300:
            return answer
        with closing(answer):
            body = answer.of_error()
        call.progress.refused(answer.status)
        raise _refusal(answer, body)

    def _waits(self, call: ModelCall) -> Waits:
        remaining = call.remaining()
        if remaining <= 0:
            raise httpx2.ReadTimeout("The call has no time left")
        silence = min(self._timeout if call.silence is None else call.silence, remaining)
        connect, pool = min(self._connect_timeout, remaining), min(POOL_SECONDS, remaining)
        return Waits(connect, read=silence, write=silence, pool=pool)


def _reader(request: ChatRequest, call: ModelCall) -> ChatAnswer | ResponsesAnswer:
    if isinstance(request, ResponsesRequest):
        return ResponsesAnswer(request.model, call.progress, request.most_text)
    return ChatAnswer(request.model, request.most_text)


def _chunks(
    response: ModelAnswer, answer: ChatAnswer | ResponsesAnswer, *, tells_usage: bool
) -> Iterator[bytes]:
    """Yield chunks of a stream once they are read. Raises `ModelError` for a stream without events."""
    data, events = SseData(), 0
    for chunk in response:
        kept = []
        for event in data.feed(chunk):
            events += 1
            if not answer.feed(event):
                kept.append(b"data: %b\n\n" % event.strip())
        if tells_usage:
            yield chunk
        elif kept:
            yield b"".join(kept)
        if answer.ended:
            response.drain(LAST_BYTES_SECONDS)
            return
    if not events:
        raise ModelError("The model sent an answer that cannot be read")


def _refusal(answer: ModelAnswer, body: bytes) -> SlipwayError:
    """Map a refusal. Only its status and code are read: the upstream's words are not passed on."""
    try:
        error = parse(body)["error"]
        code = str(error["code"]) if isinstance(error, dict) else None
    except (ValueError, KeyError, TypeError):
        code = None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    if code in TOO_LONG:
        return PromptTooLong()
    if code in NO_MONEY:
        return ModelRejected("This service's spending limit at the model's provider is reached")
    return refused(answer.status, headers=headers)
