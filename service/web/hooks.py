"""Hooks of every request, before its view and after it, in the order in which they run."""

from __future__ import annotations

from flask import Flask, Response

from service.web import gate, limits, request_span, timing, validation
from service.web.current import current


def install(app: Flask) -> None:
    traced = app.extensions["slipway"].infra.tracer.on
    app.before_request(_before_traced if traced else _before)
    app.after_request(_after_traced if traced else _after)


def _before() -> None:
    request = current()
    timing.begin(request)
    gate.refuse_when_full(request)
    validation.refuse_impossible(request)


def _before_traced() -> None:
    request = current()
    timing.begin(request)
    request_span.begin(request)
    gate.refuse_when_full(request)
    validation.refuse_impossible(request)


def _after(response: Response) -> Response:
    request = current()
    response = limits.refused(request, response)
    limits.add_headers(request, response)
    timing.finish(request, response)
    if request.held is not None:
        response.call_on_close(request.held.give)
    return response


def _after_traced(response: Response) -> Response:
    response = _after(response)
    request_span.end(current(), response)
    return response
