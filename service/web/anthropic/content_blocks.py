"""Content blocks of the Messages API, as clients send them, and as a run gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.types import Block
from service.web.client_conversation import CallId, Text, ToolName
from service.web.client_files import NO_ADDRESS, image, pdf
from service.web.schemas import Body

MAX_BLOCKS = 1_000  # blocks of a message
NO_THREAD = "is not offered here; the SDK's tool_runner does without it by `thread=False`"
Marks = dict[str, Any] | None  # `cache_control`, without effect


class TextBlock(Body):
    type: Literal["text"]
    text: Text
    cache_control: Marks = None
    citations: Any = None

    def block(self, where: str) -> Block:
        return {"type": "text", "text": self.text}


class ImageSource(Body):
    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str


class PdfSource(Body):
    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: str


class TextSource(Body):
    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: Text


class OtherSource(Body):
    """Content that is not in the body: refused."""

    type: Literal["url", "file"]
    url: str | None = None
    file_id: str | None = None


class ImageBlock(Body):
    type: Literal["image"]
    source: Annotated[ImageSource | OtherSource, Field(discriminator="type")]
    cache_control: Marks = None

    def block(self, where: str) -> Block:
        return image(*_content(self.source, where))


class PartsSource(Body):
    type: Literal["content"]
    content: Text | Annotated[list[TextBlock | ImageBlock], Field(max_length=MAX_BLOCKS)]


class DocumentBlock(Body):
    """Document; `citations` have no effect."""

    type: Literal["document"]
    source: Annotated[PdfSource | TextSource | PartsSource | OtherSource, Field(discriminator="type")]
    title: Annotated[str, Field(max_length=500)] | None = None
    context: Annotated[str, Field(max_length=20_000)] | None = None
    cache_control: Marks = None
    citations: Any = None

    def block(self, where: str) -> Block:
        about = {name: text for name in ("title", "context") if (text := getattr(self, name))}
        if isinstance(self.source, PdfSource | OtherSource):
            return {**pdf(*_content(self.source, where)), **about}
        if isinstance(self.source, PartsSource) and not isinstance(self.source.content, str):
            parts = blocks_of(self.source.content, f"{where}/source/content")
            if not parts:
                raise fault(f"{where}/source/content", "must not be empty")
            return {"type": "document", "source": {"type": "content", "content": parts}, **about}
        text = self.source.data if isinstance(self.source, TextSource) else str(self.source.content)
        if not text.strip():
            raise fault(f"{where}/source", "must contain more than white space")
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": "document", "source": source, **about}


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    input: dict[str, Any]
    cache_control: Marks = None
    caller: Any = None

    def block(self, where: str) -> Block:
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": self.input}


ResultPart = Annotated[TextBlock | ImageBlock | DocumentBlock, Field(discriminator="type")]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Text | Annotated[list[ResultPart], Field(max_length=MAX_BLOCKS)] | None = None
    is_error: bool | None = None
    cache_control: Marks = None

    def block(self, where: str) -> Block:
        content: str | list[Block]
        if isinstance(self.content, str):
            content = self.content
        elif all(isinstance(one, TextBlock) for one in self.content or ()):
            content = "\n".join(one.text for one in self.content or () if isinstance(one, TextBlock))
        else:
            content = blocks_of(self.content or (), f"{where}/content")
        block = {"type": "tool_result", "tool_use_id": self.tool_use_id, "content": content}
        return {**block, "is_error": True} if self.is_error else block


class ThinkingBlock(Body):
    """Thinking of an earlier answer, which is left out: only the model that wrote it could read it."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


AnyBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock,
    Field(discriminator="type"),
]


def blocks_of(blocks: Sequence[AnyBlock], where: str) -> list[Block]:
    """Return blocks of the Messages API, without blank texts and without thinking. Raises `Invalid`."""
    found = [
        one.block(f"{where}/{number}")
        for number, one in enumerate(blocks)
        if not isinstance(one, ThinkingBlock)
    ]
    return [one for one in found if one["type"] != "text" or one["text"].strip()]


def _content(source: ImageSource | PdfSource | OtherSource, where: str) -> tuple[str, str, str]:
    """Return the media type and data of a file, and the pointer to the data. Raises `Invalid` for any other source."""
    if isinstance(source, OtherSource):
        raise fault(f"{where}/source/type", NO_ADDRESS)
    return source.media_type, source.data, f"{where}/source/data"
