"""Model client protocol: calls, requests and replies, free of SDK types."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.types import Block, Effort, Message, Usage, UsageSource

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of an unstreamed answer; 128k tokens are about one MiB
MAX_STREAM_BYTES = 64 * 1024 * 1024  # of all events of a stream: up to 200 bytes of framing per token
MAX_TEXT = 4 * 1024 * 1024  # characters of any answer, thinking and tool calls included
LEAST_TEXT = 64 * 1024  # … allowed to any answer, however small its `max_tokens`
TOKEN_TEXT = 64  # … per token of `max_tokens`: four are usual
MAX_BATCH_BYTES = 256 * 1024 * 1024  # of all answers of a batch, read one after the other


class TextDelta(NamedTuple):
    """Piece of the model's text, as it arrives."""

    text: str


@dataclass(slots=True)
class CallProgress:
    """Progress of one attempt at a model call; billing reads it when the attempt fails."""

    billable: bool = False  # the provider may bill it
    usage: Usage | None = None  # reported by the stream before it broke
    text: str = ""  # received before the break, for a usage estimate
    refusal: int | None = None  # HTTP status by which the call was refused
    first_at: float | None = None  # time.perf_counter() of its first text
    limits: Mapping[bytes, bytes] | None = None  # headers about the provider's rate limits, if it sent any

    def refused(self, status: int) -> None:
        """Record a refusal, which nobody bills."""
        self.billable, self.refusal = False, status


class ModelCall:
    """Cancellation handle and limits of a model call, shared by the waiting thread and any thread that may abort it.

    `abort()` may be called from any thread, at any time, repeatedly: it shuts the upstream socket down, which wakes a
    reader blocked on it (closing the SDK's stream from another thread does not). `on_text` receives text read by a
    thread other than `create`'s caller; None forbids that. `before_retry` gets the progress of the failed attempt, and
    raises when another cannot be paid or must not be made.
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
        self.silence = silence  # longest wait for the next byte, in seconds; None: client default
        self.impatient = False  # shorter wait than the default: a time-out says little about the model
        self.answer_bytes = MAX_ANSWER_BYTES  # maximum; a longer answer is refused
        self.on_text = on_text
        self.progress = CallProgress()
        self._before_retry = before_retry
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.aborted = False
        self._aborting = threading.Lock()  # released on abort; cheaper than an Event
        self._aborting.acquire()

    def remaining(self) -> float:
        """Return the seconds left until the deadline, never below zero."""
        return max(0.0, self.deadline - time.monotonic())

    def attach(self, sock: socket.socket) -> None:
        """Set the socket that carries this call; shut it at once if the call is already aborted."""
        with self._lock:
            self._socket = sock
        if self.aborted:
            self.abort()

    def detach(self) -> None:
        """Release the socket, which returns to the pool: a later abort must not touch it."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        """Abort the call permanently."""
        with self._lock:
            if not self.aborted:
                self.aborted = True
                self._aborting.release()
            if self._socket is not None:
                with suppress(OSError):  # closed already, as intended
                    # not SSLSocket.shutdown: it drops TLS first, so a concurrent writer would continue in plain text
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def begin_retry(self) -> None:
        """Ask whether another attempt may be made, then reset the progress. Raises what `before_retry` raises."""
        self._before_retry(self.progress)
        self.progress = CallProgress()

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`; an abort ends the sleep early."""
        if self._aborting.acquire(timeout=seconds):
            self._aborting.release()


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Request of the Messages API. `stream`: text arrives in pieces instead of at the end."""

    model: str
    messages: Sequence[Message]
    max_tokens: int
    system: str | Sequence[Block] = ""
    tools: Sequence[Mapping[str, Any]] = ()
    may_call_tools: bool = True  # False: tools stay listed, as the history requires, with tool_choice none
    must_call_tool: bool = False  # one of them, and without thinking, which excludes a forced call
    effort: Effort | None = None
    json_schema: Mapping[str, Any] | None = None
    stream: bool = False
    stop_sequences: Sequence[str] = ()
    user_id: str | None = None  # sent as metadata.user_id: an opaque id, never a name

    @property
    def most_text(self) -> int:
        """Longest text, in characters, accepted in an answer within `max_tokens`."""
        return min(max(self.max_tokens * TOKEN_TEXT, LEAST_TEXT), MAX_TEXT)

    @property
    def most_bytes(self) -> int:
        """Longest answer accepted, in bytes."""
        return MAX_STREAM_BYTES if self.stream else MAX_ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class ModelReply:
    """Complete answer of the model. `content` is the Messages API's list of blocks, JSON-serialisable.

    `unreadable` holds the ids of tool calls whose arguments could not be parsed; their `input` is empty.
    """

    model: str
    content: list[Block]
    stop_reason: str
    usage: Usage
    usage_source: UsageSource = "reported"
    unreadable: frozenset[str] = frozenset()
    stop_sequence: str | None = None  # that ended it
    request_id: str | None = None
    attempts: int = 1
    provider: str = ""  # that answered, where there are several
    ms: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        return "".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def tool_uses(self) -> list[Block]:
        """Tool calls to run, or to answer with an error if `unreadable`.

        Empty for a truncated answer, whose calls may be incomplete.
        """
        if self.stop_reason != "tool_use":
            return []
        return [block for block in self.content if block["type"] == "tool_use"]


class ModelClient(Protocol):
    """Client of a model.

    `create` is a generator that yields `TextDelta` while text arrives (none when `request.stream` is false) and returns
    the `ModelReply`. Raises only `service.errors.ModelError` and subclasses, `RunCancelled` when `call` was aborted,
    and `Overloaded` when every connection is taken. Closing the generator stops the upstream call. A client sets
    `call.progress.billable` when a request is sent and clears it when the model refuses; before each retry of its own
    a client calls `call.begin_retry()`.
    """

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]: ...

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int: ...

    def ping(self) -> None:
        """Raise `ModelUnavailable` when the model cannot be reached; costs no tokens."""

    def close(self) -> None:
        """Close every kept-alive connection."""
