"""Body of the Responses API, and the run that it asks for.

A field that Slipway cannot honour is refused by name, or is one of those without effect that `docs/clients.md` lists.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.types import Run, RunRequest
from service.web.client_conversation import (
    EMPTY,
    MAX_TOOLS,
    Text,
    ToolName,
    checked_schema,
    instructions,
)
from service.web.client_files import without_files
from service.web.openai.chat_body import ANY_OBJECT, EFFORTS
from service.web.openai.responses_chain import earlier_turns
from service.web.openai.responses_items import Input, Item, called_in, conversation, instructions_in, items_of
from service.web.openai.tool_choice import FlatChoice, Mode, functions
from service.web.schemas import Body, EndUser, Metadata

INCLUDABLE = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]
# Fields that an answer repeats, with the values that it has for those left out.
_REPEATED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class ResponseFunction(Body):
    """Function of the client; `strict` has no effect: arguments are what the model writes."""

    type: Literal["function"]
    name: ToolName
    description: Annotated[str, Field(max_length=20_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def definition(self, where: str) -> dict[str, Any]:
        """Convert to a tool of the Messages API. Raises `Invalid`."""
        schema = self.parameters or EMPTY
        if schema.get("type") != "object":
            raise fault(f"{where}/parameters/type", "must be object")
        return {"name": self.name, "description": self.description or "", "input_schema": schema}


class Format(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=64)] | None = None
    description: Annotated[str, Field(max_length=10_000)] | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Body):
    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(Body):
    include_obfuscation: Literal[False] | None = None


class ResponseBody(Body):
    """Input of a response; `model` is the name of an agent."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    input: Input
    instructions: Text | None = None
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: Annotated[list[ResponseFunction], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Mode | FlatChoice | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None
    metadata: Metadata | None = None
    include: Annotated[list[INCLUDABLE], Field(max_length=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    top_logprobs: Literal[0] | None = None
    service_tier: Literal["auto", "default"] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1_000)] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Annotated[str, Field(max_length=64)] | None = None

    @property
    def kept(self) -> bool:
        """Return whether the response can be read again."""
        return self.store is not False

    @property
    def repeated(self) -> dict[str, Any]:
        """Return the fields that each answer repeats."""
        given = self.model_dump(include=set(_REPEATED), exclude_none=True, by_alias=True)
        for tool in given.get("tools", ()):
            tool.update({name: tool.get(name) for name in ("description", "parameters", "strict")})
        nested: dict[str, Any] = {
            name: {**_REPEATED[name], **given[name]} for name in ("reasoning", "text") if name in given
        }
        return {**_REPEATED, **given, **nested, "service_tier": "default"}

    def request(self, earlier: Run | None) -> RunRequest:
        """Convert to a run request that goes on from an earlier response. Raises `Invalid`."""
        if self.background and not self.kept:
            raise fault("/store", "must not be false for a response in the background")
        if self.tool_choice not in (None, "auto", "none") and not self.tools:
            raise fault("/tool_choice", "needs `tools`")
        items = items_of(self.input)
        turns, files = without_files(conversation(items, [] if earlier is None else earlier_turns(earlier)))
        effort = self.reasoning.effort if self.reasoning is not None else None
        tools, choice = self._client_tools(items, earlier)
        return RunRequest(
            agent=self.model,
            messages=turns,
            files=files,
            client_tools=tools,
            client_choice=choice,
            instructions=instructions([self.instructions or "", *instructions_in(items)]),
            max_tokens=self.max_output_tokens,
            effort=None if effort is None else EFFORTS.get(effort, effort),  # type: ignore[arg-type]
            output_schema=self._schema(),
            end_user=self.safety_identifier or self.user,
            metadata=self.metadata,
            asked_as=self._asked_as(items) if self.kept else None,
            door=f"responses/{'task' if self.background else 'stream' if self.stream else 'invoke'}",
        )

    def _asked_as(self, items: list[Item]) -> dict[str, Any]:
        shown = [item.shown(f"item_{number}") for number, item in enumerate(items)]
        return {"fields": self.repeated, "input": shown}

    def _client_tools(
        self, items: list[Item], earlier: Run | None
    ) -> tuple[tuple[dict[str, Any], ...] | None, Literal["none", "any"] | None]:
        offered = [tool.definition(f"/tools/{number}") for number, tool in enumerate(self.tools or ())]
        before = {tool["name"] for tool in (earlier.request.client_tools or ())} if earlier else set[str]()
        return functions(offered, "name", self.tool_choice, {*before, *called_in(items)})

    def _schema(self) -> dict[str, Any] | None:
        """Return the schema that an answer must be valid for. Raises `Invalid`."""
        format_ = self.text.format if self.text is not None else None
        if format_ is None or format_.type == "text":
            return None
        if format_.type == "json_object":
            return ANY_OBJECT
        if format_.schema_ is None:
            raise fault("/text/format/schema", "Field required")
        return checked_schema(format_.schema_, ["text", "format", "schema"])
