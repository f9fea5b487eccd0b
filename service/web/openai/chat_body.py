"""Body of Chat Completions, and the run that it asks for.

A field that Slipway cannot honour is refused by name, or is one of those without effect that `docs/clients.md` lists.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.types import Effort, RunRequest
from service.web.client_conversation import (
    EMPTY,
    MAX_TOOLS,
    StopText,
    ToolName,
    checked_schema,
    instructions,
)
from service.web.client_files import without_files
from service.web.openai.chat_messages import ChatMessage, conversation
from service.web.openai.tool_choice import Mode, ObjectChoice, functions
from service.web.schemas import Body, EndUser, Metadata

EFFORTS: dict[str, Effort] = {"none": "low", "minimal": "low"}  # others have the same names
ANY_OBJECT = {"type": "object"}


class Function(Body):
    """Function of the client; `strict` has no effect: arguments are what the model writes."""

    name: ToolName
    description: Annotated[str, Field(max_length=20_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Body):
    type: Literal["function"]
    function: Function

    def definition(self, where: str) -> dict[str, Any]:
        """Convert to a tool of the Messages API. Raises `Invalid`."""
        schema = self.function.parameters or EMPTY
        if schema.get("type") != "object":
            raise fault(f"{where}/function/parameters/type", "must be object")
        return {
            "name": self.function.name,
            "description": self.function.description or "",
            "input_schema": schema,
        }


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
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Mode | ObjectChoice | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
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
        turns, files = without_files(conversation(self.messages))
        if self.tool_choice is not None and not self.tools:
            raise fault("/tool_choice", "needs `tools`")
        tools, choice = _client_tools(self)
        return RunRequest(
            agent=self.model,
            messages=turns,
            files=files,
            client_tools=tools,
            client_choice=choice,
            stop_sequences=_stops(self.stop),
            instructions=instructions(
                one.text for one in self.messages if one.role in ("system", "developer")
            ),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            effort=None if effort is None else EFFORTS.get(effort, effort),  # type: ignore[arg-type]
            output_schema=_schema(self.response_format),
            end_user=self.safety_identifier or self.user,
            metadata=self.metadata,
            door="chat/stream" if self.stream else "chat/invoke",
            on_disconnect="cancel" if self.stream else "continue",
        )


def _stops(stop: str | list[str] | None) -> tuple[str, ...] | None:
    return ((stop,) if isinstance(stop, str) else tuple(stop or ())) or None


def _client_tools(
    body: ChatBody,
) -> tuple[tuple[dict[str, Any], ...] | None, Literal["none", "any"] | None]:
    offered = [tool.definition(f"/tools/{number}") for number, tool in enumerate(body.tools or ())]
    called = (call.function.name for message in body.messages for call in message.tool_calls or ())
    return functions(offered, "function/name", body.tool_choice, called)


def _schema(format_: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the schema that an answer must be valid for. Raises `Invalid`."""
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return ANY_OBJECT
    if format_.json_schema is None:
        raise fault("/response_format/json_schema", "Field required")
    schema = format_.json_schema.schema_
    where = ["response_format", "json_schema", "schema"]
    return checked_schema(ANY_OBJECT if schema is None else schema, where)
