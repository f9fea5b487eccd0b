"""Tracer over the OpenTelemetry SDK: OTLP over HTTP from one thread, which no request waits for.

Imported where tracing is on. The SDK's provider is ours alone, never the global one: other libraries of this process,
such as the SDKs of models and of MCP, would make spans of their own beside those of Slipway.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from service import __version__
from service.observe import genai
from service.observe.tracing import NO_ATTRIBUTES, Attributes, Kind, Span, TraceContext, Tracer

MAX_WAITING = 8_192  # spans that are not sent yet; further ones are dropped
BATCH, BATCH_MS = 512, 2_000  # spans sent at once, and the longest wait for them
MAX_VALUE = 16_384  # characters of an attribute
MAX_ATTRIBUTES = 64
MAX_ANSWER = 65_536  # bytes of the collector's that are read
CLOSE_SECONDS = 3.0
LOG_SECONDS = 60.0  # between two log lines about a collector that takes nothing
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
_TAKEN = TraceFlags(TraceFlags.SAMPLED)
log = logging.getLogger("slipway.tracing")
Count = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Destination and sampling of spans. `ratio`: share of new traces sampled; `follows`: unless a client decides."""

    endpoint: str
    headers: Mapping[str, str]
    seconds: float
    gzip: bool
    certificate: str
    resource: Mapping[str, str]
    ratio: float
    follows: bool
    content: bool


class OtelTracer(Tracer):
    """Thread-safe; one per process. Starts nothing before the first span that is sampled, which is after any fork.

    `count` is told how many spans were `sent`, `failed` to be, or were `dropped` as too many waited.
    """

    on = True

    def __init__(self, export: Export, count: Count) -> None:
        self._export = export
        self._count = count
        self._lock = threading.Lock()
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer | None = None

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        parent: TraceContext | None = None,
        began_ns: int | None = None,
    ) -> Span:
        if parent is None and random.random() >= self._export.ratio:
            return Span(TraceContext.unsampled(), self)
        if parent is not None and not parent.sampled:
            return Span(TraceContext.unsampled(parent.trace_id), self)
        tracer = self._tracer or self._start()
        if tracer is None:
            return Span(TraceContext.unsampled(0 if parent is None else parent.trace_id), self)
        given = {key: value for key, value in attributes.items() if value is not None}
        begun = tracer.start_span(name, _context_of(parent), _KINDS[kind], given, start_time=began_ns)
        if not begun.get_span_context().is_valid:  # OTEL_SDK_DISABLED is set
            return Span(TraceContext.unsampled(), self)
        return RecordedSpan(begun, self, content=self._export.content)

    def incoming(self, traceparent: str | None, *, trusted: bool) -> TraceContext | None:
        found = TraceContext.parse(traceparent)
        if found is None or trusted or self._export.follows:
            return found
        return found._replace(sampled=random.random() < self._export.ratio)

    def at(self, traceparent: str | None) -> Span | None:
        context = TraceContext.parse(traceparent)
        return None if context is None else Span(context, self)

    def close(self) -> None:
        with self._lock:
            provider, self._provider = self._provider, None
        if provider is not None:
            # In a thread, as the SDK waits longer for a collector that does not answer.
            sending = threading.Thread(target=provider.shutdown, name="traces-close", daemon=True)
            sending.start()
            sending.join(CLOSE_SECONDS)

    def _start(self) -> trace.Tracer | None:
        """Start to record; None where that cannot be: a request must not fail by its trace."""
        try:
            return self._started()
        except (RuntimeError, OSError, ValueError) as error:  # such as the system's limit of threads
            self._count("dropped", 1)
            log.warning("traces_not_begun", extra={"error": type(error).__name__})
            return None

    def _started(self) -> trace.Tracer:
        with self._lock:
            if self._tracer is None:
                resource = Resource.create({**self._export.resource, "process.pid": os.getpid()})
                limits = SpanLimits(max_span_attributes=MAX_ATTRIBUTES, max_span_attribute_length=MAX_VALUE)
                self._provider = TracerProvider(
                    ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=limits
                )
                self._provider.add_span_processor(_Bounded(_exporter(self._export), self._count))
                self._tracer = self._provider.get_tracer("slipway", __version__)
            return self._tracer


class RecordedSpan(Span):
    """Span that is recorded."""

    def __init__(self, recorded: trace.Span, tracer: OtelTracer, *, content: bool) -> None:
        made = recorded.get_span_context()
        Span.__init__(self, TraceContext(made.trace_id, made.span_id, True), tracer)
        self.takes_content = content
        self._recorded = recorded

    def set(self, attributes: Attributes) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._recorded.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._recorded.update_name(name)

    def fail(self, kind: str) -> None:
        self._recorded.set_attribute(genai.ERROR_TYPE, kind)
        self._recorded.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._recorded.end()


def _context_of(parent: TraceContext | None) -> Context:
    """Return the SDK's context: never the ambient one, which is other libraries'."""
    if parent is None:
        return Context()
    place = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=_TAKEN)
    return trace.set_span_in_context(NonRecordingSpan(place), Context())


def _exporter(export: Export) -> SpanExporter:
    session = requests.Session()
    session.stream = True  # no answer is read before `_check`
    session.hooks["response"] = [_check]
    return OTLPSpanExporter(
        endpoint=f"{export.endpoint.rstrip('/')}/v1/traces",
        certificate_file=export.certificate or None,
        headers=export.headers,
        timeout=export.seconds,
        compression=Compression.Gzip if export.gzip else Compression.NoCompression,
        session=session,
    )


def _check(response: requests.Response, *_: Any, **__: Any) -> None:
    """Read a short answer, so that its connection serves the next. Raises `ValueError` for a redirect.

    The SDK would follow none, take it for success all the same, and keep an answer of any length in memory.
    """
    length = response.headers.get("Content-Length", "")
    if re.fullmatch("[0-9]{1,5}", length) and int(length) <= MAX_ANSWER:
        response.content  # noqa: B018 - is read by this
    else:
        response.close()
    if 300 <= response.status_code < 400:
        raise ValueError("a redirect")


class _Counted(SpanExporter):
    """Exporter that counts what became of the spans, and tells of a collector that takes none."""

    def __init__(self, inner: SpanExporter, count: Callable[[bool, int], None]) -> None:
        self._inner, self._count = inner, count
        self._silent_until = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            sent = result is SpanExportResult.SUCCESS
            self._count(sent, len(spans))
            if not sent and time.monotonic() > self._silent_until:
                self._silent_until = time.monotonic() + LOG_SECONDS
                log.warning("traces_not_sent", extra={"spans": len(spans)})
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Bounded(SpanProcessor):
    """Batches in a thread, and a bound on the spans that wait, so that what is dropped is counted."""

    def __init__(self, exporter: SpanExporter, count: Count) -> None:
        self._count = count
        self._waiting = 0
        self._lock = threading.Lock()
        self._batches = BatchSpanProcessor(
            _Counted(exporter, self._exported),
            max_queue_size=2 * MAX_WAITING,  # never reached, as `MAX_WAITING` is
            schedule_delay_millis=BATCH_MS,
            max_export_batch_size=BATCH,
        )

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            full = self._waiting >= MAX_WAITING
            self._waiting += not full
        if full:
            self._count("dropped", 1)
        else:
            self._batches.on_end(span)

    def _exported(self, sent: bool, number: int) -> None:
        with self._lock:
            self._waiting -= number
        self._count("sent" if sent else "failed", number)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        return True
