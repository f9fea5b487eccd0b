"""Guardrails of a workspace on one relayed call: on the body that its client wrote, and on the answer's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson

from service.errors import GuardrailRefused, fault, guardrail_refused
from service.guardrails.filter import Matches, Refused
from service.guardrails.policy import Rail
from service.guardrails.relayed.sides import Inward, Outward
from service.guardrails.relayed.texts import TooDeep, screened
from service.guardrails.vault import Vault
from service.llm.client import ModelReply
from service.llm.relay import ChatRequest, RelayedRequest
from service.runs.relay_screen import RelayScreen
from service.text import exact_json

NOT_JUDGED = "The guardrails of this workspace have a judge, which judges agents alone: ask one of them."
Acts = Sequence[Mapping[str, Any]]  # place, kind, action and number of matches of each


def guard_of(rail: Rail, tell: Callable[[Acts], object]) -> RelayGuard | None:
    """Return the guardrails of one call; None: its bytes pass untouched."""
    return RelayGuard(rail, tell) if rail.acts or rail.judge is not None else None


def checked(request: RelayedRequest, rail: Rail) -> RelayedRequest:
    """Return a request that is counted, and not made, as its model may read it. Raises `GuardrailRefused`."""
    guard = guard_of(rail, lambda acts: None)
    return request if guard is None else guard.asked(request)


class RelayGuard:
    """Guardrails of one call. `tell` is called with what they did, and for a refused answer."""

    def __init__(self, rail: Rail, tell: Callable[[Acts], object]) -> None:
        self._rail, self._tell, self._vault = rail, tell, Vault()
        self._out = Outward(rail.output, self._vault)
        self._screen: RelayScreen | None = None

    def asked(self, request: RelayedRequest) -> RelayedRequest:
        """Return the request as its model may read it, and begin its answer. Raises `GuardrailRefused`.

        A relayed call is not judged: where a judge must not be passed by, it is not made.
        """
        judge = self._rail.judge
        if judge is not None and (judge.input or judge.output) and judge.on_error != "allow":
            raise GuardrailRefused(NOT_JUDGED, extra={"where": "input", "kind": "judge"})
        if self._rail.input.acts:
            inward = Inward(self._rail.input, self._vault)
            with self._refusing("input"):
                request = _filtered(request, inward)
            self._told("input", inward.acted)
        if self._rail.output.acts or len(self._vault):
            self._screen = RelayScreen(request, self._out)
        return request

    def answered(self, piece: bytes) -> bytes:
        """Return what may go on of the answer; then `check` is due. Raises `GuardrailRefused`."""
        if self._screen is None:
            return piece
        with self._refusing("output"):
            return self._screen.feed(piece)

    def check(self) -> None:
        """Raise `GuardrailRefused` once a text of a stream was refused."""
        if self._screen is not None and self._screen.refused is not None:
            with self._refusing("output"):
                raise self._screen.refused

    def rest(self) -> bytes:
        """Return what was held back of a complete answer, which may be all of it. Raises `GuardrailRefused`."""
        if self._screen is None:
            return b""
        with self._refusing("output"):
            rest = self._screen.close()
            self._told("output", self._out.acted)
        return rest

    def reply(self, reply: ModelReply) -> ModelReply:
        """Return a reply as its run tells it, once `rest` has counted what was found. Raises `GuardrailRefused`.

        As in answers of agents, the client's own values stay placeholders where the output is under guardrails.
        """
        if self._screen is None:
            return reply
        acts = self._rail.output.acts
        with self._refusing("output"):
            told = screened(reply.content, Outward(self._rail.output, Vault() if acts else self._vault))
        return replace(reply, content=told)

    def _told(self, where: str, acted: Matches) -> None:
        if acted:
            self._tell(acted.told(where))

    @contextmanager
    def _refusing(self, where: str) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            if where == "output":  # else the call is not made, and its caller tells
                self._tell([{"where": where, "kind": refused.kind, "action": "refuse", "count": 1}])
            raise guardrail_refused(where, refused.kind) from None


def _filtered(request: RelayedRequest, side: Inward) -> RelayedRequest:
    """Filter a request; what bounds its cost follows its body. Raises `Refused`, and `Invalid` for a deep body."""
    value = exact_json.loads(request.body)
    try:
        told = screened(value, side)
    except TooDeep:
        raise fault("", "is nested too deep for the guardrails") from None
    if told is value:
        return request
    body = exact_json.dumps(told)
    if isinstance(request, ChatRequest):
        return replace(request, body=body, messages=_recounted(request, body))
    fields: dict[str, Any] = orjson.loads(body)
    more = {name: fields[name] for name in request.json_schema or {}}
    return replace(
        request,
        body=body,
        messages=fields["messages"],
        system=fields.get("system", ""),
        tools=fields.get("tools", []),
        json_schema=more or None,
    )


def _recounted(request: ChatRequest, body: bytes) -> list[dict[str, Any]]:
    """Return the messages that bound a prompt by its bytes; those that bytes do not bound stay."""
    (message,) = request.messages
    if message["content"][0]["type"] != "text":
        return [message]
    return [{**message, "content": [{"type": "text", "text": body.decode()}]}]
