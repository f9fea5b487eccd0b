"""Messages of Chat Completions, and the conversation that they are for a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.types import Block, Message
from service.web.body import json_in
from service.web.client_conversation import MAX_TOOLS, CallId, Text, ToolName
from service.web.client_files import NO_ADDRESS, from_data_url, image, pdf
from service.web.schemas import Body


class TextPart(Body):
    type: Literal["text"]
    text: Text


class ImageUrl(Body):
    """Image as a data URL; `detail` has no effect."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl

    def block(self, where: str) -> Block:
        """Convert to a block of the Messages API. Raises `Invalid`."""
        pointer = f"{where}/image_url/url"
        return image(*from_data_url(self.image_url.url, pointer), pointer)


class FileData(Body):
    """PDF as a data URL; a `file_id` is refused."""

    file_data: str | None = None
    filename: Annotated[str, Field(max_length=500)] | None = None
    file_id: str | None = None


class FilePart(Body):
    type: Literal["file"]
    file: FileData

    def block(self, where: str) -> Block:
        """Convert to a block of the Messages API. Raises `Invalid`."""
        if self.file.file_id is not None:
            raise fault(f"{where}/file/file_id", NO_ADDRESS)
        pointer = f"{where}/file/file_data"
        media_type, data = from_data_url(self.file.file_data or "", pointer)
        return pdf(media_type, data, pointer, title=self.file.filename)


Part = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]


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


class ChatMessage(Body):
    """Message of a conversation; `name` has no effect. An SDK sends an answer back with the fields it was given."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(fail_fast=True, min_length=1, max_length=200)] | None = None
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
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        return self.content or ""

    @property
    def has_files(self) -> bool:
        return isinstance(self.content, list) and any(not isinstance(one, TextPart) for one in self.content)

    def parts(self, where: str) -> list[Block]:
        """Convert the content to blocks of the Messages API, without blank texts. Raises `Invalid`."""
        found: list[Block] = []
        for number, part in enumerate(self.content if isinstance(self.content, list) else ()):
            if not isinstance(part, TextPart):
                found.append(part.block(f"{where}/content/{number}"))
            elif part.text.strip():
                found.append({"type": "text", "text": part.text})
        return found


def conversation(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """Return the turns of the user and the agent, without empty ones of the agent. Raises `Invalid`."""
    _refuse_files_of_others(messages)
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
        _check_turn(message, where, first=not turns)
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


def _refuse_files_of_others(messages: Sequence[ChatMessage]) -> None:
    for number, message in enumerate(messages):
        if message.has_files and message.role != "user":
            raise fault(f"/messages/{number}/content", "images and files are the user's")


def _check_turn(message: ChatMessage, where: str, *, first: bool) -> None:
    """Check a turn of the user or the assistant. Raises `Invalid`."""
    if message.role == "assistant" and first:
        raise fault(f"{where}/role", "the first message of a conversation must be the user's")
    if message.role == "user" and not (message.text.strip() or message.has_files):
        raise fault(f"{where}/content", "must contain more than white space")


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
        if message.has_files:
            return message.parts(where)
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
