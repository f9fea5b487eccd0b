"""Places in a trace, without a server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import ModelUnavailable
from service.observe import tracing
from service.observe.otel import Count, Export, OtelTracer
from service.observe.tracing import Span, TraceContext
from tests.conftest import PYTHON, ROOT
from tests.observe.otlp import receiver

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLACE = TraceContext.parse(HEADER)
assert PLACE is not None


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    yield
    tracing.enter(None)


def tracer(
    ratio: float,
    *,
    follows: bool = False,
    endpoint: str = "http://127.0.0.1:9",
    count: Count = lambda outcome, number: None,
) -> OtelTracer:
    about = {"headers": {}, "seconds": 1, "gzip": False, "certificate": "", "resource": {}, "content": False}
    export = Export(endpoint=endpoint, ratio=ratio, follows=follows, **about)  # type: ignore[arg-type]
    return OtelTracer(export, count)


def test_header_is_written_as_it_was_read() -> None:
    assert PLACE is not None and PLACE.traceparent() == HEADER


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        HEADER.upper(),
        HEADER.replace("00-", "ff-", 1),
        HEADER + "-more",
        "00-" + "0" * 32 + HEADER[35:],
        HEADER[:36] + "0" * 16 + "-01",
    ],
)
def test_what_is_no_header_is_no_place(header: str | None) -> None:
    assert TraceContext.parse(header) is None


def test_header_of_a_later_version_may_have_more_parts() -> None:
    assert TraceContext.parse(HEADER.replace("00-", "01-", 1) + "-more") == PLACE


def test_nothing_is_made_under_what_is_not_sampled() -> None:
    found = tracer(0)
    request = found.begin("request")
    assert type(request) is Span and not request.context.sampled
    with tracing.Within(request), tracing.span("child") as child:
        assert child is None
        assert tracing.current() is request
        assert tracing.traceparent() == request.context.traceparent()
    assert tracing.current() is None and found._provider is None


def test_share_is_drawn_once_for_a_request_whatever_its_client_says() -> None:
    found = tracer(0.2)
    drawn = [found.incoming(HEADER, trusted=False) for _ in range(2_000)]
    assert {one.trace_id for one in drawn if one} == {PLACE.trace_id if PLACE else 0}
    assert 250 < sum(one.sampled for one in drawn if one) < 600
    assert found.incoming(HEADER, trusted=True) == PLACE
    assert tracer(0.0, follows=True).incoming(HEADER, trusted=False) == PLACE


@pytest.mark.parametrize(("status", "outcome"), [(200, "sent"), (302, "failed"), (400, "failed")])
def test_redirect_of_a_collector_is_no_success(status: int, outcome: str) -> None:
    counted: list[tuple[str, int]] = []
    with receiver() as got:
        got.status = status
        found = tracer(1.0, endpoint=got.url, count=lambda outcome, number: counted.append((outcome, number)))
        found.begin("x").end()
        found.close()
    assert counted == [(outcome, 1)] and len(got.headers) == 1


class Made(Span):
    def __init__(self, told: list[Any]) -> None:
        assert PLACE is not None
        Span.__init__(self, PLACE, tracing.OFF)
        self._told = told

    def set(self, attributes: Any) -> None:
        self._told.append(dict(attributes))

    def fail(self, kind: str) -> None:
        self._told.append(kind)

    def end(self) -> None:
        self._told.append("end")


class Waits(Exception):
    """As a run that waits is left."""


@pytest.mark.parametrize(
    ("error", "told"),
    [(ModelUnavailable(), ["model_unavailable", "end"]), (Waits(), [{"slipway.left_by": "Waits"}, "end"])],
)
def test_errors_fail_a_span_and_waits_do_not(error: Exception, told: list[Any]) -> None:
    heard: list[Any] = []

    class Tracer(tracing.Tracer):
        def begin(self, *args: Any, **more: Any) -> Span:
            return Made(heard)

    with pytest.raises(type(error)), tracing.root(Tracer(), "root", {}):
        raise error
    assert heard == told


def test_no_tracer_is_loaded_while_traces_are_off() -> None:
    """Redis' client loads a part of the SDK, about metrics, wherever that is installed."""
    code = (
        "import sys, service.app, service.observe.tracer, agent_server.app\n"
        "off = ('service.observe.otel', 'opentelemetry.sdk.trace.export', 'google.protobuf')\n"
        "sys.exit(any(name in sys.modules for name in off))"
    )
    assert subprocess.run([PYTHON, "-c", code], cwd=ROOT, timeout=120).returncode == 0
