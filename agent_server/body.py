"""Body of a POST that asks for a run, as docs/remote-agents.md has it; members that mean nothing here are ignored."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from service.errors import FieldFault, Invalid
from service.guardrails.taint import MESSAGES, Taint, text_in
from service.runs.alone.execution import Order
from service.types import Block, Effort, RunRequest

MAX_BODY = 8 * 1024 * 1024  # bytes: a session's history, and the steps before a question
MAX_SECONDS = 3600.0  # longest run
MAX_FAULTS = 20
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Part(BaseModel):
    """Base of bodies and their parts."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Parse a body. Raises `Invalid` with a pointer to each fault."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
            faults: list[FieldFault] = [
                {"pointer": "".join(f"/{part}" for part in one["loc"]), "detail": one["msg"]} for one in found
            ]
            raise Invalid("The request does not fit; see `errors`.", errors=faults) from None


class Message(Part):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class Decision(Part):
    """Decision of a person about one tool call; `arguments` may be changed ones."""

    call_id: Name
    name: Name
    decision: Literal["approve", "deny"]
    arguments: dict[str, Any]
    comment: str | None = None


class Step(Part):
    kind: Literal["model", "tools"]
    name: str
    reply: dict[str, Any]


class State(Part):
    """State that was given with a question: the steps before it."""

    steps: list[Step]


class Resume(Part):
    state: State
    decisions: list[Decision]


class OfSlipway(Part):
    """Facts that the policy of tools needs: permitted tools, sources of untrusted text, the user's own words."""

    tools: list[str]
    untrusted: list[str]
    words: list[str]


class Cancel(Part):
    run_id: Name


class Ask(Part):
    """Run that is asked for. Without `slipway` it has no tools, and all that it brings counts as untrusted."""

    input: str
    messages: Annotated[list[Message], Field(min_length=1)]
    run_id: Name
    run_token: Annotated[str, Field(min_length=1, pattern=r"^[\x21-\x7e]+$")]
    base_url: HttpUrl
    deadline: AwareDatetime
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    effort: Effort | None = None
    output_schema: dict[str, Any] | None = None
    resume: Resume | None = None
    slipway: OfSlipway | None = None

    @property
    def seconds(self) -> float:
        """Seconds until the deadline, at most `MAX_SECONDS`."""
        left = (self.deadline - datetime.fromtimestamp(time.time(), UTC)).total_seconds()
        return min(max(left, 0.0), MAX_SECONDS)

    def order(self, agent: str, *, streams: bool) -> Order:
        """Return the run as it is executed."""
        request = RunRequest(
            agent,
            ({"role": "user", "content": self.input},),
            max_tokens=self.max_tokens,
            effort=self.effort,
            output_schema=self.output_schema,
        )
        resume = self.resume
        return Order(
            run_id=self.run_id,
            request=request,
            messages=tuple(message.model_dump() for message in self.messages),
            taint=self._taint(),
            tools=self.slipway.tools if self.slipway else (),
            stored=[step.model_dump() for step in resume.state.steps] if resume else (),
            decisions=[decision.model_dump() for decision in resume.decisions] if resume else (),
            streams=streams,
        )

    def _taint(self) -> Taint:
        found = Taint()
        text = text_in([message.content for message in self.messages])
        for source in self.slipway.untrusted if self.slipway else (MESSAGES,):
            found.add(source, text)
        for words in self.slipway.words if self.slipway else ():
            found.trust(words)
        return found
