"""Body of a native request for a run, as HTTP and WebSocket take it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from service.errors import fault
from service.types import Effort, OnCap, OnConflict, RunRequest
from service.web.client_conversation import checked_schema
from service.web.schemas import Body, ContextObject, EndUser, Metadata, ModelText


class TextBlock(Body):
    type: Literal["text"]
    text: ModelText


class Turn(Body):
    role: Literal["user", "assistant"]
    content: ModelText | Annotated[list[TextBlock], Field(fail_fast=True, min_length=1, max_length=100)]


OutputSchema = Annotated[
    dict[str, Any],
    Field(
        description="JSON Schema of the answer, which is then JSON: `structured` in the result is its value"
    ),
    AfterValidator(partial(checked_schema, where=["output_schema"])),
]


class RunBody(Body):
    """Question to an agent: `input`, or `messages` that begin and end with the user's turn."""

    input: ModelText | None = None
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=500)] | None = None
    session_id: Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")] | None = None
    context: ContextObject | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    max_steps: (
        Annotated[int, Field(ge=1, description="Step limit of the run, at most the agent's `limits.steps`")]
        | None
    ) = None
    effort: Effort | None = None
    tier: Literal["auto", "simple", "medium", "complex"] = "auto"
    cache: Literal["default", "bypass", "refresh"] = "default"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_conflict: OnConflict | None = None
    on_cap: OnCap | None = None
    parent_message_id: Annotated[str, Field(pattern=r"^msg_[0-9a-z]{26}$")] | None = None
    output_schema: OutputSchema | None = None
    end_user: EndUser | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _one_question(self) -> RunBody:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send either `input` or `messages`")
        if self.messages is not None:
            _of_the_user(self.messages, 0)
            _of_the_user(self.messages, len(self.messages) - 1)
        if self.parent_message_id is not None and self.session_id is None:
            raise fault("/parent_message_id", "needs a `session_id`")
        return self

    @property
    def parent(self) -> str | None:
        """Parent message; "" for an explicit `null` (a first turn), None if omitted (the newest message)."""
        return (self.parent_message_id or "") if "parent_message_id" in self.model_fields_set else None

    def request(self, agent: str, door: str) -> RunRequest:
        """Convert to a run request for `agent`; fields other than the question have the same names there."""
        asked = self.model_dump(exclude={"input"})
        messages = asked["messages"] or [{"role": "user", "content": self.input}]
        asked |= {"agent": agent, "messages": tuple(messages), "parent_message_id": self.parent, "door": door}
        return RunRequest(**asked)


def _of_the_user(messages: list[Turn], number: int) -> None:
    """Raise `Invalid` if that message is not the user's; pydantic would point at the whole body."""
    if messages[number].role != "user":
        raise fault(f"/messages/{number}/role", "the first and the last message must be the user's")
