"""Input items of the Responses API, and the conversation that they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from service.errors import fault
from service.types import Block, Message
from service.web.body import json_in
from service.web.client_conversation import CallId, Text, ToolName
from service.web.client_files import NO_ADDRESS, from_data_url, image, pdf
from service.web.schemas import Body

MAX_ITEMS = 500
# The Messages API takes no conversation that begins with the assistant.
_BEGUN_BY_ASSISTANT = "[The conversation begins with the assistant.]"


def _kind(value: Any) -> str:
    """Tell text from a list, so that a fault within the list is not also one of the text."""
    return "text" if isinstance(value, str) else "list"


class InputText(Body):
    """Text. An SDK sends an answer back with the fields that it was given: some have no effect."""

    type: Literal["input_text", "output_text", "refusal", "reasoning_text"]
    text: Text | None = None
    refusal: Text | None = None
    annotations: Annotated[list[dict[str, Any]], Field(max_length=100)] | None = None
    logprobs: Annotated[list[dict[str, Any]], Field(max_length=100)] | None = None
    parsed: Any = None

    def block(self, where: str) -> Block | None:
        """Convert to a block of the Messages API; None without words. `where`: pointer to the part."""
        text = self.text or self.refusal or ""
        return {"type": "text", "text": text} if text.strip() else None


class InputImage(Body):
    """Image as a data URL; `detail` has no effect."""

    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None

    def block(self, where: str) -> Block:
        """Convert to a block of the Messages API. Raises `Invalid`."""
        if self.file_id is not None:
            raise fault(f"{where}/file_id", NO_ADDRESS)
        pointer = f"{where}/image_url"
        return image(*from_data_url(self.image_url or "", pointer), pointer)


class InputFile(Body):
    """PDF as a data URL."""

    type: Literal["input_file"]
    file_data: str | None = None
    filename: Annotated[str, Field(max_length=500)] | None = None
    file_id: str | None = None
    file_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None

    def block(self, where: str) -> Block:
        """Convert to a block of the Messages API. Raises `Invalid`."""
        for name in ("file_id", "file_url"):
            if getattr(self, name) is not None:
                raise fault(f"{where}/{name}", NO_ADDRESS)
        pointer = f"{where}/file_data"
        media_type, data = from_data_url(self.file_data or "", pointer)
        return pdf(media_type, data, pointer, title=self.filename)


Part = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(fail_fast=True, max_length=100)]
Content = Annotated[Annotated[Text, Tag("text")] | Annotated[Parts, Tag("list")], Discriminator(_kind)]


class Item(Body):
    """Message, call of a function or its output. Reasoning is left out: only its model can read it."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: Annotated[str, Field(max_length=128)] | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    call_id: CallId | None = None
    name: ToolName | None = None
    arguments: Text | None = None
    parsed_arguments: Any = None
    output: Content | None = None
    summary: Annotated[list[dict[str, Any]], Field(max_length=100)] | None = None
    encrypted_content: Text | None = None

    @property
    def text(self) -> str:
        return _text(self.content)

    def shown(self, item_id: str) -> dict[str, Any]:
        """Return the item as the API lists it: with an id, its content in parts, and images and files by name only."""
        files = {"__all__": {"image_url", "file_data"}}
        left_out: dict[str, Any] = {"parsed_arguments": True}
        left_out |= {name: files for name in ("content", "output") if isinstance(getattr(self, name), list)}
        fields = self.model_dump(exclude_none=True, exclude=left_out)
        fields |= {"id": self.id or item_id, "type": self.type}
        if self.type == "message":
            kind = "output_text" if self.role == "assistant" else "input_text"
            if not isinstance(self.content, list):
                part: dict[str, Any] = {"type": kind, "text": self.content or ""}
                fields["content"] = [part | {"annotations": []} if kind == "output_text" else part]
        return fields | {"status": self.status or "completed"}


Input = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS), Tag("list")],
    Discriminator(_kind),
]


def items_of(given: str | list[Item]) -> list[Item]:
    """Return the input as items: a text is the user's message."""
    return [Item(role="user", content=given)] if isinstance(given, str) else given


def instructions_in(items: Sequence[Item]) -> list[str]:
    """List what the application says in messages of role `system` and `developer`."""
    return [item.text for item in items if item.type == "message" and item.role in ("system", "developer")]


def called_in(items: Sequence[Item]) -> Iterator[str]:
    """Yield the names of the functions that were called."""
    return (item.name for item in items if item.type == "function_call" and item.name is not None)


def conversation(items: Sequence[Item], earlier: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns of a conversation that goes on from `earlier`, whose last turn is the assistant's.

    Raises `Invalid`.
    """
    arguments = json_in(dict(_arguments(items)))
    turns = _Turns(earlier)
    for number, item in enumerate(items):
        turns.add(item, f"/input/{number}", arguments)
    if turns.open or not turns.turns or turns.turns[-1]["role"] != "user":
        detail = (
            "outputs of these calls are missing: " + ", ".join(sorted(turns.open))
            if turns.open
            else "the last item must be a message of the user, or an output of a function"
        )
        raise fault("/input", detail)
    return tuple(turns.turns)


class _Turns:
    """Turns of a conversation, item by item; `open` are calls whose outputs have not come yet."""

    def __init__(self, earlier: Sequence[Message]) -> None:
        self.turns: list[Message] = list(earlier)
        calls = [block["id"] for turn in earlier for block in _calls(turn)]
        self.known = set(calls)
        self.open = {block["id"] for block in _calls(earlier[-1])} if earlier else set[str]()

    def add(self, item: Item, where: str, arguments: Mapping[str, Any]) -> None:
        """Add an item. Raises `Invalid` where it does not fit."""
        if item.type == "message":
            self._message(item, where)
        elif item.type == "function_call":
            self._call(item, where, arguments)
        elif item.type == "function_call_output":
            self._output(item, where)

    def _message(self, item: Item, where: str) -> None:
        if item.role is None:
            raise fault(f"{where}/role", "Field required")
        if item.role != "user" and _has_files(item.content):
            raise fault(f"{where}/content", "images and files are the user's")
        if item.role in ("system", "developer"):
            return
        if item.role == "user":
            if self.open:
                raise fault(where, "outputs of the calls before it must come first")
            content = _content(item.content, f"{where}/content")
            if not content:
                raise fault(f"{where}/content", "must contain more than white space")
            self.turns.append({"role": "user", "content": content})
        elif item.text.strip():
            self._of_assistant(where).append({"type": "text", "text": item.text})

    def _call(self, item: Item, where: str, arguments: Mapping[str, Any]) -> None:
        if item.call_id is None or item.name is None:
            raise fault(f"{where}/{'call_id' if item.call_id is None else 'name'}", "Field required")
        if item.call_id in self.known:
            raise fault(f"{where}/call_id", "two calls have the same id")
        made = arguments[f"{where}/arguments"]
        self._of_assistant(where).append(
            {"type": "tool_use", "id": item.call_id, "name": item.name, "input": made}
        )
        self.known.add(item.call_id)
        self.open.add(item.call_id)

    def _output(self, item: Item, where: str) -> None:
        if item.output is None:
            raise fault(f"{where}/output", "Field required")
        if item.call_id not in self.open:
            raise fault(
                f"{where}/call_id", "must be the id of a call before it whose output has not come yet"
            )
        self.open.discard(item.call_id)
        told = _content(item.output, f"{where}/output") or _text(item.output)
        block = {"type": "tool_result", "tool_use_id": item.call_id, "content": told}
        if self.turns[-1]["role"] == "user":
            self.turns[-1]["content"].append(block)
        else:
            self.turns.append({"role": "user", "content": [block]})

    def _of_assistant(self, where: str) -> list[Block]:
        """Return the content of the assistant's turn that goes on, or of a new one."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            content: list[Block] = self.turns[-1]["content"]
            return content
        if self.open:
            raise fault(where, "outputs of the calls before it must come first")
        if not self.turns:
            self.turns.append({"role": "user", "content": _BEGUN_BY_ASSISTANT})
        new: list[Block] = []
        self.turns.append({"role": "assistant", "content": new})
        return new


def _calls(turn: Message) -> list[Block]:
    if turn["role"] != "assistant" or isinstance(turn["content"], str):
        return []
    return [block for block in turn["content"] if block.get("type") == "tool_use"]


def _arguments(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Yield the arguments of all calls as they were written, by their pointers."""
    for number, item in enumerate(items):
        if item.type == "function_call":
            yield f"/input/{number}/arguments", item.arguments or "{}"


def _content(content: str | list[Part] | None, where: str) -> str | list[Block]:
    """Return content as text, or as blocks where it has images or files; empty without any words."""
    if not isinstance(content, list) or not _has_files(content):
        text = _text(content)
        return text if text.strip() else ""
    return [block for number, part in enumerate(content) if (block := part.block(f"{where}/{number}"))]


def _has_files(content: str | list[Part] | None) -> bool:
    return isinstance(content, list) and any(not isinstance(part, InputText) for part in content)


def _text(content: str | list[Part] | None) -> str:
    if isinstance(content, list):
        words = (part.text or part.refusal for part in content if isinstance(part, InputText))
        return "\n".join(filter(None, words))
    return content or ""
