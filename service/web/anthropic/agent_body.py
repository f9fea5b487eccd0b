"""Body of the Messages API where its model is an agent, and the run that it asks for.

A field that Slipway cannot honour is refused by name, or is one of those without effect that `docs/clients.md` lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.files import FILE_TYPES
from service.types import Block, Effort, Message, RunRequest
from service.web.anthropic.content_blocks import (
    MAX_BLOCKS,
    NO_THREAD,
    AnyBlock,
    Marks,
    TextBlock,
    ToolUseBlock,
    blocks_of,
)
from service.web.client_conversation import (
    MAX_TOOLS,
    StopText,
    Text,
    ToolName,
    checked_schema,
    client_choice,
    client_tools,
    instructions,
    narrowed,
)
from service.web.client_files import without_files
from service.web.schemas import Body, EndUser

SCHEMA = ("output_config", "format", "schema")


class InputMessage(Body):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[AnyBlock], Field(fail_fast=True, max_length=MAX_BLOCKS)]


class ClientTool(Body):
    """Tool of the client; those that the provider runs are not offered."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: Annotated[str, Field(max_length=20_000)] = ""
    input_schema: dict[str, Any]
    cache_control: Marks = None
    strict: bool | None = None
    input_examples: list[dict[str, Any]] | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(Body):
    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    effort: Effort | None = None
    format: OutputFormat | None = None


class UserMetadata(Body):
    user_id: EndUser | None = None


class AgentBody(Body):
    """Conversation that ends with the user's turn; `model` is the name of an agent."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[InputMessage], Field(fail_fast=True, min_length=1, max_length=500)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    system: Text | Annotated[list[TextBlock], Field(max_length=100)] | None = None
    stream: bool | None = None
    stop_sequences: Annotated[list[StopText], Field(max_length=16)] | None = None
    metadata: UserMetadata | None = None
    output_config: OutputConfig | None = None
    tools: Annotated[list[ClientTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    thread: dict[str, Any] | None = None  # refused with a hint
    tool_choice: Annotated[ToolChoice | NamedChoice, Field(discriminator="type")] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    thinking: dict[str, Any] | None = None
    cache_control: Marks = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None

    def request(self) -> RunRequest:
        """Convert to a run request. Raises `Invalid` for a conversation or a schema that does not fit."""
        config = self.output_config or OutputConfig()
        if self.thread is not None:
            raise fault("/thread", NO_THREAD)
        if self.tool_choice is not None and not self.tools:
            raise fault("/tool_choice", "needs `tools`")
        said = [self.system] if isinstance(self.system, str) else [block.text for block in self.system or ()]
        tools, choice = _client_tools(self)
        messages, files = without_files(_conversation(self.messages))
        return RunRequest(
            agent=self.model,
            messages=messages,
            files=files,
            instructions=instructions(said),
            max_tokens=self.max_tokens,
            effort=config.effort,
            output_schema=None if config.format is None else checked_schema(config.format.schema_, SCHEMA),
            stop_sequences=tuple(self.stop_sequences or ()) or None,
            client_tools=tools,
            client_choice=choice,
            end_user=self.metadata.user_id if self.metadata is not None else None,
            door="messages/stream" if self.stream else "messages/invoke",
            on_disconnect="cancel" if self.stream else "continue",
        )


def _conversation(messages: Sequence[InputMessage]) -> tuple[Message, ...]:
    """Return the turns, without empty ones of the assistant. Raises `Invalid`."""
    turns: list[Message] = []
    asked: set[str] = set()  # calls of the turn before
    known: set[str] = set()  # calls so far
    for number, message in enumerate(messages):
        where = f"/messages/{number}"
        blocks = _blocks(message, f"{where}/content")
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if set(results) != asked or len(results) > len(asked):
            raise fault(
                f"{where}/content",
                "must have one tool_result for each tool_use of the message before, and no other",
            )
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        asked = set(calls)
        if len(asked) < len(calls) or asked & known:
            raise fault(f"{where}/content", "two calls have the same id")
        known |= asked
        _check_turn(message, blocks, where, first=not turns)
        if blocks:
            turns.append({"role": message.role, "content": blocks})
    if messages[-1].role != "user":
        raise fault(f"/messages/{len(messages) - 1}/role", "the last message must be the user's")
    return tuple(turns)


def _check_turn(message: InputMessage, blocks: Sequence[Block], where: str, *, first: bool) -> None:
    """Check the kinds of blocks in a turn. Raises `Invalid`."""
    kinds = {block["type"] for block in blocks}
    if first and message.role != "user":
        raise fault(f"{where}/role", "the first message must be the user's")
    if message.role == "user" and not blocks:
        raise fault(f"{where}/content", "must contain more than white space")
    if ("tool_use" if message.role == "user" else "tool_result") in kinds:
        raise fault(f"{where}/content", "tool_use is the assistant's, tool_result the user's")
    if message.role == "assistant" and not kinds.isdisjoint(FILE_TYPES):
        raise fault(f"{where}/content", "images and documents are the user's")


def _blocks(message: InputMessage, where: str) -> list[Block]:
    """Return the blocks of a turn, results first, without blank texts and without thinking. Raises `Invalid`."""
    content = message.content
    if isinstance(content, str):
        content = [TextBlock(type="text", text=content)]
    return sorted(blocks_of(content, where), key=lambda one: one["type"] != "tool_result")


def _client_tools(
    body: AgentBody,
) -> tuple[tuple[dict[str, Any], ...] | None, Literal["none", "any"] | None]:
    """Return the tools that are offered, or stubs of those in the conversation, and the choice among them.

    Raises `Invalid`.
    """
    tools: list[dict[str, Any]] = []
    for number, tool in enumerate(body.tools or ()):
        if tool.input_schema.get("type") != "object":
            raise fault(f"/tools/{number}/input_schema/type", "must be object")
        if tool.name in [one["name"] for one in tools]:
            raise fault(f"/tools/{number}/name", "two tools have the same name")
        tools.append({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema})
    blocks = (
        one for message in body.messages if not isinstance(message.content, str) for one in message.content
    )
    mode: Literal["auto", "any", "none"] = "auto"
    if isinstance(body.tool_choice, NamedChoice):
        mode, tools = "any", narrowed(tools, {"/tool_choice/name": body.tool_choice.name})
    elif body.tool_choice is not None:
        mode = body.tool_choice.type
    listed = client_tools(tools, (one.name for one in blocks if isinstance(one, ToolUseBlock)))
    return listed, client_choice(mode, tools) if listed else None
