"""Traces: the current span of a thread, its children, and W3C trace context; without OpenTelemetry, which is optional.

A request or run that is not sampled has a place in a trace all the same, for its log lines and for what it calls: then
no span is made under it, and nothing is imported. `service.observe.otel` records the spans that are sampled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

from service.errors import SlipwayError
from service.observe import genai

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, Any]
# https://www.w3.org/TR/trace-context-2/#traceparent-header: later versions may have more parts.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
SAMPLED = 1  # bit of the flags
NO_ATTRIBUTES: Attributes = {}


class TraceContext(NamedTuple):
    """Place in a trace, as W3C trace context names it."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, traceparent: str | None) -> TraceContext | None:
        """Parse a `traceparent`; None for one that is none."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
            return None
        trace_id, span_id = int(found[2], 16), int(found[3], 16)
        return cls(trace_id, span_id, bool(int(found[4], 16) & SAMPLED)) if trace_id and span_id else None

    @classmethod
    def unsampled(cls, trace_id: int = 0) -> TraceContext:
        """Make a place of which nothing is recorded, in this trace or a new one."""
        return cls(trace_id or random.getrandbits(128) | 1, random.getrandbits(64) | 1, False)

    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


class Span:
    """Place in a trace of which this process records nothing: not sampled, or the span of another process."""

    takes_content = False  # prompts and answers may be set

    def __init__(self, context: TraceContext, tracer: Tracer) -> None:
        self.context = context
        self.tracer = tracer

    def set(self, attributes: Attributes) -> None:
        """Set attributes; those that are None are left out."""

    def rename(self, name: str) -> None: ...

    def fail(self, kind: str) -> None:
        """Mark as failed. `kind`: an error's code or class, never its message."""

    def end(self) -> None: ...


class Tracer:
    """Tracer that is off: there is no place in any trace."""

    on = False

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        parent: TraceContext | None = None,
        began_ns: int | None = None,
    ) -> Span | None:
        """Begin a span under `parent`, recorded if that is sampled; without a parent, the sampler decides."""
        return None

    def incoming(self, traceparent: str | None, *, trusted: bool) -> TraceContext | None:
        """Return the place to which a client's header points. `trusted`: it decides whether that is sampled."""
        return None

    def at(self, traceparent: str | None) -> Span | None:
        """Return the place of a `traceparent` of our own; None: there is none."""
        return None

    def close(self) -> None:
        """Send what is recorded, within seconds."""


OFF = Tracer()
_current: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    return _current.get()


def enter(span: Span | None) -> None:
    """Make a span the current one of this thread, until another is: a thread serves one request after another."""
    _current.set(span)


def traceparent() -> str:
    """Return the header for what the current span calls; empty: there is none."""
    span = _current.get()
    return "" if span is None else span.context.traceparent()


def join(traceparent: str | None) -> None:
    """Make another span of our own the current one of this request, if the request is in another trace than that."""
    span = _current.get()
    if (
        span is not None
        and (place := TraceContext.parse(traceparent))
        and place.trace_id != span.context.trace_id
    ):
        _current.set(Span(place, span.tracer))


class Within:
    """Context in which a span, if it is not None, is the current one. Unlike a token's reset, any thread may leave."""

    __slots__ = ("_before", "span")

    def __init__(self, span: Span | None) -> None:
        self.span = span
        self._before: Span | None = None

    def __enter__(self) -> Span | None:
        if self.span is not None:
            self._before = _current.get()
            _current.set(self.span)
        return self.span

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.span is not None:
            _current.set(self._before)


class _Recording(Within):
    """`Within` that ends its span, failed by an error of ours; other exceptions leave a run without failing it."""

    __slots__ = ()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        Within.__exit__(self, kind, error, trace)
        if self.span is not None:
            if isinstance(error, SlipwayError):
                self.span.fail(error.code)
            elif error is not None:
                self.span.set({genai.LEFT_BY: type(error).__name__})
            self.span.end()


_NOTHING = Within(None)


def span(name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES) -> Within:
    """Begin a child of the current span, current within the context; nothing under one that is not sampled."""
    begun = start(name, kind, attributes)
    return _NOTHING if begun is None else _Recording(begun)


def root(tracer: Tracer, name: str, attributes: Attributes) -> Within:
    """Begin a trace of its own, current within the context."""
    begun = tracer.begin(name, "internal", attributes)
    return _NOTHING if begun is None else _Recording(begun)


def start(
    name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES, began_ns: int | None = None
) -> Span | None:
    """Begin a child of the current span, for `Span.end` in any thread; None under one that is not sampled."""
    parent = _current.get()
    if parent is None or not parent.context.sampled:
        return None
    return parent.tracer.begin(name, kind, attributes, parent=parent.context, began_ns=began_ns)
