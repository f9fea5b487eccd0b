"""OTLP receiver of the tests: protobuf over HTTP, as a collector takes it; and the trees of the spans it was sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.conftest import wait_until


@dataclass(frozen=True)
class Sent:
    """Span as it was sent."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    about: dict[str, Any]
    failed: bool
    seconds: float
    resource: dict[str, Any]


@dataclass
class Receiver:
    """Spans that have arrived, and the headers of the requests; `status` is what it answers."""

    url: str = ""
    status: int = 200
    spans: list[Sent] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def take(self, headers: Any, body: bytes) -> None:
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        if self.status == 200:
            self.spans += [
                _sent(span, _plain(group.resource.attributes))
                for group in request.resource_spans
                for scope in group.scope_spans
                for span in scope.spans
            ]

    def of_run(self, run_id: str) -> list[Sent]:
        """Return the spans of the trace that a run is in."""
        traces = {span.trace_id for span in self.spans if span.about.get("slipway.run.id") == run_id}
        return [span for span in self.spans if span.trace_id in traces]

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]

    def wait_for(self, name: str, number: int = 1) -> list[Sent]:
        """Wait for spans of a name, with their parents: these end later."""
        wait_until(lambda: len(self.named(name)) >= number, f"{number} spans named {name}", 30)
        return self.named(name)


def tree(spans: list[Sent]) -> list[Any]:
    """Return the trees of spans: pairs of a name and what is under it, by name. One tree is one pair."""
    known = {span.span_id for span in spans}

    def under(parent: str) -> list[Any]:
        found = [span for span in spans if span.parent_id == parent]
        return sorted((span.name, under(span.span_id)) for span in found)

    roots = {span.parent_id for span in spans} - known
    return [pair for root in sorted(roots) for pair in under(root)]


@contextmanager
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces", self.path
            found.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(found.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join()


def _sent(span: Any, resource: dict[str, Any]) -> Sent:
    return Sent(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        about=_plain(span.attributes),
        failed=span.status.code == 2,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        resource=resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
