"""Base class of the clients of the Messages API: one call, its stream and its time-outs, at any provider."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import httpx2
import orjson

from service.errors import ModelError, ModelTimeout
from service.llm.call_errors import NEVER_SENT, our_errors
from service.llm.client import CallProgress, ModelCall, ModelReply, ModelRequest, TextDelta
from service.llm.connect import Origin
from service.llm.message_builder import MessageBuilder
from service.llm.message_params import COUNTED, params_of
from service.llm.sse_data import SseData
from service.llm.stream_reader import FEW_STREAMS, StreamReader, StreamSink
from service.llm.transport import ModelAnswer, ModelTransport, Waits
from service.llm.upstream import unreached

NONE: Mapping[str, str] = {}
LAST_BYTES_SECONDS = 0.5  # to read the end of the body after the last event
POOL_SECONDS = 1.0  # longest wait for a free connection: failing early beats queueing
PING_SECONDS = 2.0


class MessagesClient(ABC):
    """`ModelClient` of one provider of the Messages API: thread-safe, one per process, created after the fork.

    `timeout` is the longest silence of the model and `connect_timeout` the longest wait for a connection, in seconds;
    both are cut to the time left of the call. Retries nothing.
    """

    def __init__(self, transport: ModelTransport, timeout: float, connect_timeout: float) -> None:
        self._transport = transport
        self.places = transport.places
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._streams: set[ModelCall] = set()  # open streams
        self._stream_reader = StreamReader()

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]:
        """See `ModelClient`. On every exit `call.progress` holds the reported usage and the text so far."""
        began = time.perf_counter()
        call.progress = CallProgress()
        call.answer_bytes = request.most_bytes
        call.impatient = self._silence(call) < self._timeout
        answer = MessageBuilder(request.model, request.most_text)
        with our_errors(call):
            with closing(self.send(orjson.dumps(params_of(request)), call)) as response:
                try:
                    if request.stream:
                        yield from self._relay(response, answer, call)
                    else:
                        answer.take(b"".join(response))
                finally:
                    call.progress.usage, call.progress.text = answer.usage, answer.written
            ms = (time.perf_counter() - began) * 1000
            return answer.reply(response.request_id, ms)

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        """Count the request's input tokens with the API's token counter. Raises as `create` does."""
        body = params_of(request)
        return self.count({name: body[name] for name in COUNTED if name in body}, call)

    def send(self, body: bytes, call: ModelCall, headers: bytes = b"") -> ModelAnswer:
        """Send a body of `POST /v1/messages`, with further header lines; return its answer once the head is there.

        Closing the answer stops the upstream call.
        """
        waits = self._seconds(call)
        origin, message = self._written(body, headers, waits)
        # Billable until refused: after any other failure the model may have done the work.
        call.progress.billable = True
        try:
            answer = self._transport.send(origin, message, call, waits)
        except Exception as error:
            call.progress.billable = not isinstance(error, NEVER_SENT)
            raise unreached(error) from None
        if 200 <= answer.status < 300:
            return self._readable(answer)
        with closing(answer):
            raise self._refusal(answer.status, answer.headers, answer.of_error())

    @abstractmethod
    def count(self, fields: Mapping[str, Any], call: ModelCall, headers: Mapping[str, str] = NONE) -> int:
        """Count the tokens of a prompt, given as parameters of the API. Raises as `create` does."""

    @abstractmethod
    def ping(self) -> None:
        """See `ModelClient`; waits for at most `PING_SECONDS`."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _written(self, body: bytes, headers: bytes, waits: Waits) -> tuple[Origin, bytes]:
        """Write the request for a body of the Messages API. Returns where to send it, and its bytes."""

    @abstractmethod
    def _refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Exception:
        """Read the answer to a request that was refused."""

    def _readable(self, answer: ModelAnswer) -> ModelAnswer:
        """Return the answer as one of the Messages API."""
        return answer

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
                    response.drain(LAST_BYTES_SECONDS)
                    return
                if has_text and call.on_text and len(self._streams) > FEW_STREAMS:
                    take = partial(_take, data, answer, call.on_text)
                    self._stream_reader.read(StreamSink(response, call, self._silence(call), take))
                    response.drain(LAST_BYTES_SECONDS)
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


def counted(body: bytes, field: str = "input_tokens") -> int:
    """Parse a token count. Raises `ModelError` for one below 1, because a reservation may be based on it."""
    try:
        count = orjson.loads(body)[field]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("The model sent an answer that cannot be read") from error
    if type(count) is not int or count < 1:
        raise ModelError("The model sent a count that is no number of tokens")
    return count
