"""Answers of models of the upstream: relayed with a key as a run, or with the token of a run as a step of it."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response

from service.auth.run_tokens import RunGrant
from service.errors import NotFound
from service.llm.relay import ChatRequest
from service.web.admission import Admitted
from service.web.openai.errors import error_body, error_event, problem_of_run
from service.web.openai.upstream_body import names_upstream_model
from service.web.relaying import Dialect, relayed_answer
from service.web.run_token_relay import relay


def relay_step(grant: RunGrant, read: Callable[[], tuple[object, ChatRequest]]) -> Response:
    """Relay a call with the token of a run, whose body `read` reads.

    Raises `NotFound` for anything but a model of the upstream.
    """
    if not names_upstream_model():
        raise NotFound(
            "There is no such model here. With the token of a run, Claude is asked at /v1/messages."
        )
    return relay(grant, read()[1], lambda *told: error_event(error_body(*told)))


def answer(admitted: Admitted, asked: ChatRequest) -> Response:
    return relayed_answer(admitted, asked, _DIALECT)


_DIALECT = Dialect(problem_of_run, error_event)
