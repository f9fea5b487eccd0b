"""Model client protocol: calls, requests and replies. No type of the SDK passes it."""

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
    """Piece of the model's text, as it arrives."""

    text: str


@dataclass(slots=True)
class CallProgress:
    """Progress of an attempt at a model call: billing reads it where the attempt breaks off."""

    billable: bool = False  # the model may charge for it
    usage: Usage | None = None  # reported by the stream before it broke off
    text: str = ""  # written by then, for an estimate


class ModelCall:
    """Lifeline of a model call, shared between the thread that waits for the model and the one that may stop it.

    `abort()` may be called from any thread, at any time, more than once: it shuts the upstream socket down,
    which wakes a reader blocked on it (closing the SDK's stream from another thread does not).
    `on_text` takes text that another thread than `create`'s caller reads, where such a thread may.
    `before_retry` gets the progress of an attempt that may be charged for; it raises where another cannot be paid.
    """

    def __init__(
        self,
        deadline: float,
        silence: float | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        before_retry: Callable[[CallProgress], object] = lambda progress: None,
    ) -> None:
        self.deadline = deadline  # time.monotonic() seconds
        self.silence = silence  # longest wait for the next byte, in seconds; None: the client's own
        self.impatient = False  # waits less long than other calls do: its time-out says little of the model
        self.answer_bytes = MAX_ANSWER_BYTES  # a longer answer is refused
        self.on_text = on_text
        self.progress = CallProgress()
        self._before_retry = before_retry
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.aborted = False
        self._aborting = threading.Lock()  # released once the call is aborted; lighter than an event
        self._aborting.acquire()

    def remaining(self) -> float:
        """Seconds left until the deadline, never below zero."""
        return max(0.0, self.deadline - time.monotonic())

    def attach(self, sock: socket.socket) -> None:
        """Set the socket that carries this call; shut it at once where the call is aborted already."""
        with self._lock:
            self._socket = sock
        if self.aborted:
            self.abort()

    def detach(self) -> None:
        """Let go of the socket, which goes back to the pool: from now on an abort must not touch it."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        """Stop the call for good."""
        with self._lock:
            if not self.aborted:
                self.aborted = True
                self._aborting.release()
            if self._socket is not None:
                with suppress(OSError):  # closed already, as intended
                    # not SSLSocket.shutdown: it drops TLS first, and a writer would go on in clear
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def begin_retry(self) -> None:
        """Pay for an attempt that may be charged for, then forget it. Raises what `before_retry` does."""
        if self.progress.billable:
            self._before_retry(self.progress)
        self.progress = CallProgress()

    def sleep(self, seconds: float) -> None:
        """Pause; an abort ends it early."""
        if self._aborting.acquire(timeout=seconds):
            self._aborting.release()


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Request of the Messages API. `stream` decides whether text comes in pieces or at the end."""

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
        """Longest text, in characters, that an answer within `max_tokens` can have."""
        return min(max(self.max_tokens * TOKEN_TEXT, LEAST_TEXT), MAX_TEXT)

    @property
    def most_bytes(self) -> int:
        """Longest answer that is read."""
        return MAX_STREAM_BYTES if self.stream else MAX_ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class ModelReply:
    """Whole answer of the model. `content` is the Messages API's list of blocks, all of it fit for JSON.

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
        """Tool calls to be made, or answered with an error where `unreadable`. Empty for an answer that was cut off,
        since its calls may be incomplete."""
        if self.stop_reason != "tool_use":
            return []
        return [block for block in self.content if block["type"] == "tool_use"]


class ModelClient(Protocol):
    """Client of a model.

    `create` is a generator: it yields `TextDelta` while text arrives (not at all when `request.stream` is
    false) and returns the `ModelReply`. It raises a `service.errors.ModelError` or one of its subclasses and
    nothing else; `RunCancelled` when `call` was aborted, `Overloaded` when every connection is taken. Closing
    the generator stops the upstream call. It sets `call.progress.billable` when a request leaves and takes it back
    when the model refuses it; before it tries again by itself it calls `call.begin_retry()`.
    """

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]: ...

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int: ...

    def ping(self) -> None:
        """Raise `ModelUnavailable` when the model cannot be reached; costs no tokens."""

    def close(self) -> None:
        """Let go of every connection that is kept alive."""
