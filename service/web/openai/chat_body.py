"""Body of Chat Completions, and the run that it asks for.

A field that Slipway cannot honour is refused by name, or is one of those without effect that `docs/clients.md` lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.types import Block, Effort, Message, RunRequest
from service.web.body import json_in
from service.web.client_conversation import (
    EMPTY,
    MAX_TOOLS,
    CallId,
    StopText,
    Text,
    ToolName,
    checked_schema,
    client_tools,
    instructions,
)
from service.web.schemas import Body, EndUser, Metadata

EFFORTS: dict[str, Effort] = {"none": "low", "minimal": "low"}  # others have the same names
ANY_OBJECT = {"type": "object"}


class TextPart(Body):
    type: Literal["text"]
    text: Text


class FunctionCall(Body):
    name: ToolName
    arguments: Text
    parsed_arguments: Any = None  # of an SDK's own reading of a stream, as are `index` and `parsed`


class ToolCall(Body):
    id: CallId
    type: Literal["function"]
    function: FunctionCall
    index: int | None = None

    def block(self, arguments: dict[str, Any]) -> Block:
        """Convert to a block of the Messages API."""
        return {"type": "tool_use", "id": self.id, "name": self.function.name, "input": arguments}


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


class ChatMessage(Body):
    """Message of a conversation; `name` has no effect. An SDK sends an answer back with the fields it was given."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=100)] | None = (
        None
    )
    name: Annotated[str, Field(max_length=256)] | None = None
    refusal: Text | None = None
    annotations: Annotated[list[dict[str, Any]], Field(max_length=100)] | None = None
    audio: None = None
    function_call: None = None
    parsed: Any = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: CallId | None = None

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
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
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
        effort, turns = self.reasoning_effort, _conversation(self.messages)
        if self.tool_choice is not None and not self.tools:
            raise fault("/tool_choice", "needs `tools`")
        tools = _client_tools(self)
        return RunRequest(
            agent=self.model,
            messages=turns,
            client_tools=tools,
            client_choice="none" if tools and (self.tool_choice == "none" or not self.tools) else None,
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
        )


def _stops(stop: str | list[str] | None) -> tuple[str, ...] | None:
    return ((stop,) if isinstance(stop, str) else tuple(stop or ())) or None


def _conversation(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """Return the turns of the user and the agent, without empty ones of the agent. Raises `Invalid`."""
    turns: list[Message] = []
    arguments = json_in(dict(_arguments(messages)))
    asked: set[str] = set()  # calls whose results have not come yet
    known: set[str] = set()  # calls so far
    for number, message in enumerate(messages):
        where = f"/messages/{number}"
        if message.role in ("system", "developer"):
            continue
        if message.role == "tool":
            if message.tool_call_id not in asked:
                raise fault(f"{where}/tool_call_id", "must be the id of a call in the message before")
            asked.discard(message.tool_call_id)
            _add_result(turns, message)
            continue
        if asked:
            raise fault(
                f"{where}/role", "results of the calls before it must come first, as messages of role tool"
            )
        if message.role == "assistant" and not turns:
            raise fault(f"{where}/role", "the first message of a conversation must be the user's")
        if message.role == "user" and not message.text.strip():
            raise fault(f"{where}/content", "must contain more than white space")
        if blocks := _blocks(message, where, arguments):
            turns.append({"role": message.role, "content": blocks})
        asked = _new_calls(message, where, known)
        known |= asked
    if asked or not turns or turns[-1]["role"] != "user":
        raise fault(
            f"/messages/{len(messages) - 1}/role",
            "the last message must be the user's, or a result of role tool",
        )
    return tuple(turns)


def _new_calls(message: ChatMessage, where: str, known: Set[str]) -> set[str]:
    """Return the ids of a message's calls. Raises `Invalid` for one that is known."""
    calls = [call.id for call in message.tool_calls or ()]
    found = set(calls)
    if len(found) < len(calls) or found & known:
        raise fault(f"{where}/tool_calls", "two calls have the same id")
    return found


def _arguments(messages: Sequence[ChatMessage]) -> Iterator[tuple[str, str]]:
    """Yield the arguments of all calls as they were written, by their pointers."""
    for number, message in enumerate(messages):
        for place, call in enumerate(message.tool_calls or ()):
            where = f"/messages/{number}/tool_calls/{place}/function/arguments"
            yield where, call.function.arguments or "{}"


def _blocks(message: ChatMessage, where: str, arguments: Mapping[str, Any]) -> str | list[Block]:
    """Return the content of a turn, empty for an assistant's turn without any. Raises `Invalid`."""
    if not message.tool_calls:
        return message.text if message.text.strip() else ""
    if message.role != "assistant":
        raise fault(f"{where}/tool_calls", "only the assistant calls tools")
    calls = [
        call.block(arguments[f"{where}/tool_calls/{number}/function/arguments"])
        for number, call in enumerate(message.tool_calls)
    ]
    return [*([{"type": "text", "text": message.text}] if message.text.strip() else []), *calls]


def _add_result(turns: list[Message], message: ChatMessage) -> None:
    """Add a result to the turn that answers the assistant's calls."""
    block = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}
    if turns[-1]["role"] == "user":
        turns[-1]["content"].append(block)
    else:
        turns.append({"role": "user", "content": [block]})


def _client_tools(body: ChatBody) -> tuple[dict[str, Any], ...] | None:
    """Return the functions that are offered, and stubs of those that are only in the conversation. Raises `Invalid`."""
    offered = [tool.definition(f"/tools/{number}") for number, tool in enumerate(body.tools or ())]
    names = [tool["name"] for tool in offered]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise fault(f"/tools/{number}/function/name", "two functions have the same name")
    called = (call.function.name for message in body.messages for call in message.tool_calls or ())
    return client_tools(offered, called)


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
