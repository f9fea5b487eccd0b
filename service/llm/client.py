"""The model client's protocol: what the rest of the house knows of a model. No SDK type passes this door."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.types import Block, Effort, Message, Usage, UsageSource

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of an answer that comes whole; 128k tokens are about one MiB
MAX_STREAM_BYTES = 64 * 1024 * 1024  # of all events of a stream: up to 200 bytes around each token
MAX_TEXT = 4 * 1024 * 1024  # characters that any answer may have written, thinking and tool calls included
LEAST_TEXT = 64 * 1024  # … and those that a short one may, whatever its tokens
TOKEN_TEXT = 64  # … and of one token: four are usual
MAX_BATCH_BYTES = 256 * 1024 * 1024  # of all answers of a batch, which are read one after the other


class TextDelta(NamedTuple):
    """A piece of the model's text, as it arrives."""

    text: str


class ModelCall:
    """One call's lifeline, shared between the thread that waits for the model and the one that may stop it.

    `abort()` may be called from any thread, at any time, more than once: it shuts the upstream socket down,
    which wakes a reader blocked on it (closing the SDK's stream from another thread does not).
    """

    def __init__(self, deadline: float, silence: float | None = None) -> None:
        self.deadline = deadline  # time.monotonic() seconds
        self.silence = silence  # longest wait for the next byte, in seconds; None: as the client has it
        self.impatient = (
            False  # it waits less long than other calls do, so its time-out says little of the model
        )
        self.partial_usage: Usage | None = None  # what a broken stream had told of its usage so far
        self.partial_text = ""  # and the text that had come out by then, for the estimate
        self.answer_bytes = MAX_ANSWER_BYTES  # an answer that is longer is not taken
        self.billable = False  # the model may charge for the attempt under way, or for the last one
        self.hear: Callable[[str], None] | None = None  # may be told of text instead of `create`'s caller
        self.pay_again: Callable[[], None] = lambda: None  # raises when another attempt cannot be paid
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.aborted = False
        self._going_on = threading.Lock()  # open once the call is aborted; lighter than an event
        self._going_on.acquire()

    def remaining(self) -> float:
        """Seconds left until the deadline, never below zero."""
        return max(0.0, self.deadline - time.monotonic())

    def attach(self, sock: socket.socket) -> None:
        """The transport tells which socket carries this call; aborted already means shut at once."""
        with self._lock:
            self._socket = sock
        if self.aborted:
            self.abort()

    def detach(self) -> None:
        """The socket goes back to the pool: from now on an abort must not touch it."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        with self._lock:
            if not self.aborted:
                self.aborted = True
                self._going_on.release()
            if self._socket is not None:
                with suppress(OSError):  # closed already: that is what was wanted
                    # not SSLSocket.shutdown: it drops TLS first, and a writer would go on in clear
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def again(self) -> None:
        """Before another attempt: one that the model may charge for is paid on top. Raises what `pay_again` does."""
        if self.billable:
            self.pay_again()
        self.billable, self.partial_usage, self.partial_text = False, None, ""

    def sleep(self, seconds: float) -> None:
        """A pause that an abort ends early."""
        if self._going_on.acquire(timeout=seconds):
            self._going_on.release()


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of the Messages API. `stream` decides whether text comes in pieces or at the end."""

    model: str
    messages: Sequence[Message]
    max_tokens: int
    system: str | Sequence[Block] = ""
    tools: Sequence[Mapping[str, Any]] = ()
    may_call_tools: bool = True  # False: tools stay listed, as history needs, with tool_choice none
    effort: Effort | None = None
    json_schema: Mapping[str, Any] | None = None
    stream: bool = False
    user_id: str | None = None  # sent as metadata.user_id: an opaque id, never a name

    @property
    def most_text(self) -> int:
        """Characters that no answer within `max_tokens` can pass."""
        return min(max(self.max_tokens * TOKEN_TEXT, LEAST_TEXT), MAX_TEXT)


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One whole answer. `content` is the Messages API's list of blocks: everything in it can be written as JSON.

    `unreadable` names the tool calls, by their ids, whose arguments could not be read; their `input` is empty.
    """

    model: str
    content: list[Block]
    stop_reason: str
    usage: Usage
    usage_source: UsageSource = "reported"
    unreadable: frozenset[str] = frozenset()
    request_id: str | None = None
    attempts: int = 1
    ms: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        return "".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def tool_uses(self) -> list[Block]:
        """The calls to be made, or answered with an error where `unreadable`. None of an answer that was cut off:
        what stands there is not all that the model had to say."""
        if self.stop_reason != "tool_use":
            return []
        return [block for block in self.content if block["type"] == "tool_use"]


class ModelClient(Protocol):
    """Anything that can call a model.

    `create` is a generator: it yields `TextDelta` while text arrives (not at all when `request.stream` is
    false) and returns the `ModelReply`. It raises a `service.errors.ModelError` or one of its subclasses and
    nothing else; `RunCancelled` when `call` was aborted, `Overloaded` when every connection is taken. Closing
    the generator stops the upstream call. It sets `call.billable` when a request leaves and takes it back when
    the model refuses it; before it tries again by itself it asks `call.again()`.
    """

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]: ...

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int: ...

    def ping(self) -> None:
        """Raise `ModelUnavailable` when the model cannot be reached; costs no tokens."""

    def close(self) -> None:
        """Let go of every connection that is kept alive."""
