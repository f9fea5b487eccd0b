"""HTTP API of the program: `POST /<agent>`, `POST /<agent>/cancel`, `GET /health`."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from agent_server.body import MAX_BODY, Ask, Cancel
from agent_server.running import Running
from agent_server.settings import Settings
from service import errors
from service.agents.definitions import AgentDefinition
from service.errors import NotFound, SlipwayError, Unauthenticated, UnsupportedMediaType
from service.llm.build import gateway
from service.observe import genai, logs, tracer, tracing
from service.observe.tracing import Span, TraceContext
from service.runs.alone.execution import AloneExecution, Order
from service.runs.slots import Handle
from service.tools import ToolRunner
from service.usage.prices import PriceTable

log = logging.getLogger("slipway.request")
JSON, SSE, PROBLEM = "application/json", "text/event-stream", "application/problem+json"
_BY_STATUS: Mapping[int, type[SlipwayError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.TooLarge,
}


class AgentServer:
    """Agents that are served, and their runs."""

    def __init__(self, settings: Settings, agents: Mapping[str, AgentDefinition], prices: PriceTable) -> None:
        self._settings = settings
        self._agents = agents
        self._execution = AloneExecution(prices, ToolRunner(slots=settings.at_once * 2))
        self._running = Running(settings.at_once)
        self.tracer = tracer.build(settings.traces, {}, lambda outcome, number: None)

    def authenticate(self) -> None:
        """Raises `Unauthenticated` without the operator's token, where there is one."""
        given = request.headers.get("Authorization", "").encode("latin-1", "replace")
        expected = f"Bearer {self._settings.token}".encode()
        if self._settings.token and not hmac.compare_digest(given, expected):
            raise Unauthenticated()

    def ask(self, agent: str) -> Response:
        """Execute a run; stream its events where the client accepts them, else answer with JSON."""
        definition = self._agent(agent)
        place = TraceContext.parse(request.headers.get("traceparent"))
        tracing.enter(place and Span(place, self.tracer))  # also where it is off: the gateway is told
        asked = Ask.read(_body())
        streams = SSE in request.headers.get("Accept", "")
        work = partial(self._execute, definition, asked, asked.order(agent, streams=streams))
        handle = Handle(asked.run_id, asked.seconds)
        logs.bind(run_id=asked.run_id, agent=agent)
        self._running.take()
        if streams:
            return Response(self._running.stream(handle, work), mimetype=SSE)
        return _json(self._running.answer(handle, work))

    def cancel(self, agent: str) -> Response:
        """Stop a run, if it is executed by this process."""
        self._agent(agent)
        return _json({"cancelled": self._running.cancel(Cancel.read(_body()).run_id)}, 202)

    def health(self) -> Response:
        return _json({"status": "ok", "agents": sorted(self._agents)})

    def _agent(self, name: str) -> AgentDefinition:
        if name not in self._agents:
            raise NotFound(f"There is no agent named {name}." if len(name) <= 64 else None)
        return self._agents[name]

    def _execute(
        self, agent: AgentDefinition, asked: Ask, order: Order, handle: Handle, tell: Any
    ) -> dict[str, Any]:
        """Execute a run with a client of its own, which has the run's token."""
        about = {genai.OPERATION: genai.INVOKE_AGENT, genai.AGENT: agent.id, genai.RUN: asked.run_id}
        with tracing.span(f"{genai.INVOKE_AGENT} {agent.id}", "server", about) as span:
            answer = self._executed(agent, asked, order, handle, tell)
            if span is not None and answer["status"] == "failed":
                span.fail(answer["error"]["code"])
        return answer

    def _executed(
        self, agent: AgentDefinition, asked: Ask, order: Order, handle: Handle, tell: Any
    ) -> dict[str, Any]:
        began = time.monotonic()
        timeout, connect = self._settings.model_timeout, self._settings.connect_timeout
        client = gateway(str(asked.base_url).rstrip("/"), asked.run_token, timeout, connect)
        try:
            answer = self._execution.execute(agent, order, client, handle, tell)
        finally:
            client.close()
        ms = round((time.monotonic() - began) * 1000)
        code = answer.get("error", {}).get("code")
        log.info("run", extra={"status": answer["status"], "code": code, "duration_ms": ms})
        return answer


def create_app(settings: Settings, agents: Mapping[str, AgentDefinition], prices: PriceTable) -> Flask:
    """Build the WSGI application."""
    app = Flask("agent_server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    server = AgentServer(settings, agents, prices)
    app.add_url_rule("/health", view_func=server.health)
    app.add_url_rule("/<agent>", view_func=_guarded(server, server.ask), methods=["POST"], endpoint="ask")
    app.add_url_rule(
        "/<agent>/cancel", view_func=_guarded(server, server.cancel), methods=["POST"], endpoint="cancel"
    )
    app.register_error_handler(SlipwayError, _problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected)
    app.extensions["tracer"] = server.tracer
    return app


def _guarded(server: AgentServer, view: Any) -> Any:
    def guarded(agent: str) -> Response:
        logs.clear(request_id=request.headers.get("X-Request-ID", "")[:128])
        server.authenticate()
        response: Response = view(agent)
        return response

    return guarded


def _body() -> bytes:
    if request.mimetype != JSON:
        raise UnsupportedMediaType("Send the body as application/json.")
    return request.get_data(cache=False)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype=JSON)


def _problem(error: SlipwayError) -> Response:
    response = Response(orjson.dumps(error.as_problem()), error.status, mimetype=PROBLEM)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_problem(error: HTTPException) -> Response:
    return _problem(_BY_STATUS.get(error.code or 500, errors.BadRequest)())


def _unexpected(error: Exception) -> Response:
    log.error("unhandled_error", exc_info=error)
    return _problem(SlipwayError())
