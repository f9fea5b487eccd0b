"""Body of Chat Completions, and the run that it asks for.

A field that Slipway cannot honour is refused by name, or listed in `NO_EFFECT`, which `docs/doors.md` shows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.text.json_schema import JsonSchema, SchemaFault
from service.types import Effort, Message, RunRequest
from service.web.body import pointer
from service.web.schemas import Body, EndUser, Metadata, no_nul

NO_EFFECT = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "store", "verbosity"),
    *("parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
_EFFORTS: dict[str, Effort] = {"none": "low", "minimal": "low"}  # others have the same names
_ANY_OBJECT = {"type": "object"}
Text = Annotated[str, Field(max_length=400_000)]


class TextPart(Body):
    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    """Message of a conversation; `name` has no effect."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=100)] | None = (
        None
    )
    name: Annotated[str, Field(max_length=256)] | None = None
    refusal: Text | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class NamedSchema(Body):
    name: Annotated[str, Field(max_length=64)]
    description: Annotated[str, Field(max_length=10_000)] | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ChatBody(Body):
    """Conversation that ends with the user's message; `model` is the name of an agent."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=500)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: ResponseFormat | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None
    metadata: Metadata | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    store: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1_000)] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Annotated[str, Field(max_length=64)] | None = None

    @property
    def counts_usage(self) -> bool:
        """Return whether the stream ends with the usage of the call."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def request(self) -> RunRequest:
        """Convert to a run request. Raises `Invalid` for a conversation or a schema that does not fit."""
        effort = self.reasoning_effort
        return RunRequest(
            agent=self.model,
            messages=_conversation(self.messages),
            instructions=_instructions(self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            effort=None if effort is None else _EFFORTS.get(effort, effort),  # type: ignore[arg-type]
            output_schema=_schema(self.response_format),
            end_user=self.safety_identifier or self.user,
            metadata=self.metadata,
            door="chat/stream" if self.stream else "chat/invoke",
        )


def _instructions(messages: list[ChatMessage]) -> str | None:
    """Join what the application, and not its user, has said."""
    said = [message.text for message in messages if message.role in ("system", "developer")]
    return no_nul("\n\n".join(text for text in said if text.strip())) or None


def _conversation(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """Return the turns of the user and the agent, without empty ones of the agent. Raises `Invalid`."""
    turns: list[Message] = []
    for number, message in enumerate(messages):
        if message.role in ("user", "assistant"):
            if message.text.strip():
                turns.append({"role": message.role, "content": message.text})
            elif message.role == "user":
                raise fault(f"/messages/{number}/content", "must contain more than white space")
            if len(turns) == 1 and turns[0]["role"] != "user":
                raise fault(
                    f"/messages/{number}/role", "the first message of a conversation must be the user's"
                )
    if not turns or messages[-1].role != "user":
        raise fault(f"/messages/{len(messages) - 1}/role", "the last message must be the user's")
    return tuple(turns)


def _schema(format_: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the schema that an answer must be valid for. Raises `Invalid`."""
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return _ANY_OBJECT
    if format_.json_schema is None:
        raise fault("/response_format/json_schema", "Field required")
    schema = format_.json_schema.schema_
    try:
        JsonSchema(schema if schema is not None else _ANY_OBJECT)
    except SchemaFault as wrong:
        where = pointer(["response_format", "json_schema", "schema", *wrong.path])
        raise fault(where, wrong.detail) from None
    return schema if schema is not None else _ANY_OBJECT
