"""Relay of model calls that another program has written: the body is sent as it came, the answer's bytes come back.

The answer is read on its way, for its usage and its end: the same `MessageBuilder` bills it as any other.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import orjson

from service.errors import ModelError, ModelUnavailable
from service.llm.call_errors import our_errors
from service.llm.client import CallProgress, ModelCall, ModelClient, ModelReply, ModelRequest
from service.llm.message_builder import MessageBuilder
from service.llm.messages_client import LAST_BYTES_SECONDS, MessagesClient
from service.llm.sse_data import SseData
from service.llm.transport import ModelAnswer

# Parameters of a call that the token counter refuses.
NOT_COUNTED = frozenset({"max_tokens", "metadata", "service_tier", "stop_sequences", "stream"})


@dataclass(frozen=True, slots=True)
class RelayedRequest(ModelRequest):
    """Request whose `body` is sent unchanged; the other fields are those of it that bound its cost."""

    body: bytes = b""
    betas: str = ""  # header `anthropic-beta`; checked by the door
    by_address: bool = False  # has content that the provider fetches: what is counted may not be what is read
    cites: bool = False  # has documents to be cited: the provider marks their sentences, however short


@dataclass(frozen=True, slots=True)
class ChatRequest(RelayedRequest):
    """Request of Chat Completions, whose `body` asks for usage. `tells_usage`: its caller asked for it, too."""

    tells_usage: bool = True
    context_tokens: int = 0  # most tokens of a prompt, which stand for those that cannot be counted


@dataclass(frozen=True, slots=True)
class ResponsesRequest(ChatRequest):
    """Request of the Responses API, which tells usage always."""


class RelayClient:
    """`ModelClient` whose `create` takes a `RelayedRequest` and yields the answer's bytes, as they arrive.

    An answer that is not streamed is yielded whole, once it is known to be readable.
    """

    def __init__(self, client: MessagesClient) -> None:
        self._client = client

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[Any, None, ModelReply]:
        assert isinstance(request, RelayedRequest)
        began = time.perf_counter()
        call.progress = CallProgress()
        call.answer_bytes = request.most_bytes
        answer = MessageBuilder(request.model, request.most_text)
        headers = b"anthropic-beta: %b\r\n" % request.betas.encode() if request.betas else b""
        with our_errors(call):
            with closing(self._client.send(request.body, call, headers)) as response:
                try:
                    if request.stream:
                        yield from _events(response, answer)
                    else:
                        body = b"".join(response)
                        answer.take(body)
                        yield body
                finally:
                    call.progress.usage, call.progress.text = answer.usage, answer.written
            ms = (time.perf_counter() - began) * 1000
            return answer.reply(response.request_id, ms)

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        assert isinstance(request, RelayedRequest)
        with our_errors(call):
            body = orjson.loads(request.body)
        fields = {name: part for name, part in body.items() if name not in NOT_COUNTED}
        return self._client.count(fields, call, {"anthropic-beta": request.betas} if request.betas else {})

    def ping(self) -> None:
        self._client.ping()

    def close(self) -> None:
        self._client.close()


def _events(response: ModelAnswer, answer: MessageBuilder) -> Generator[bytes]:
    """Yield chunks of a stream once their events are read. Raises `ModelError` for a stream without events."""
    data = SseData()
    for chunk in response:
        for event in data.feed(chunk):
            answer.feed(event)
        yield chunk
        if answer.ended:
            if rest := response.drain(LAST_BYTES_SECONDS):
                yield rest
            return
    if answer.stop_reason is None and not answer.written and answer.usage is None:
        raise ModelError("The model sent an answer that cannot be read")


class RelayRouter:
    """`ModelClient` that relays each call to the upstream of its dialect.

    `chat` is that of `ChatRequest`s, those of Responses too (see `service.llm.chat_completions`); None: there is none.
    """

    def __init__(self, messages: ModelClient, chat: ModelClient | None) -> None:
        self._messages, self._chat = messages, chat

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[Any, None, ModelReply]:
        return self._of(request).create(request, call)

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        return self._of(request).count_tokens(request, call)

    def ping(self) -> None:
        self._messages.ping()

    def close(self) -> None:
        for client in (self._messages, self._chat):
            if client is not None:
                client.close()

    def _of(self, request: ModelRequest) -> ModelClient:
        if not isinstance(request, ChatRequest):
            return self._messages
        if self._chat is None:
            raise ModelUnavailable("There is no upstream in OpenAI's dialect any more")
        return self._chat
