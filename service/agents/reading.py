"""Texts that a pattern reads: pages out of tool results, as documents that the model can cite, and verified quotes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from service.tools import ToolResult
from service.types import Block, Message

MAX_PAGE = 8_000  # characters of a page that the model is given
MAX_TITLE = 200  # characters


class Document(Protocol):
    """Text with a title, such as a `Page` or a passage of an agent's knowledge."""

    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...


class Page(NamedTuple):
    """Passage or page that a tool has returned."""

    title: str
    uri: str
    text: str


def pages_of(result: ToolResult, uri: str = "") -> list[Page]:
    """Return the pages in a tool result: each of its `results`, or the whole of it, from `uri`.

    Empty for a failed call.
    """
    if not result.ok:
        return []
    rows = _rows(result.content)
    if rows is None:
        source = result.sources[0] if result.sources else {}
        rows = [{"title": source.get("title"), "uri": uri or source.get("uri"), "text": result.content}]
    return [page for page in map(_page, rows) if page.text]


def _rows(content: str) -> list[dict[str, Any]] | None:
    """Return the rows of `{"results": [{"title", "uri", "text"}, …]}`; None for any other content."""
    try:
        rows = orjson.loads(content)["results"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None


def _page(row: dict[str, Any]) -> Page:
    title, uri, text = (str(row.get(name) or "") for name in ("title", "uri", "text"))
    return Page((title or uri or "Untitled")[:MAX_TITLE], uri, text.strip()[:MAX_PAGE])


def with_documents(message: Message, documents: Iterable[Document]) -> Message:
    """Insert documents before a user turn, as blocks that the model can cite."""
    content = message["content"]
    blocks: list[Block] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    before: list[Block] = [
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": one.text},
            "title": one.title,
            "citations": {"enabled": True},
        }
        for one in documents
    ]
    return {"role": message["role"], "content": before + blocks}


def verified(sources: Iterable[dict[str, str]], pages: Sequence[Page]) -> list[dict[str, str]]:
    """Return the sources whose quote is verbatim in a page of their title, with its URI. White space may differ."""
    found = []
    for source in sources:
        quote = " ".join(source["quote"].split())
        read = (one for one in pages if one.title == source["title"] and quote in " ".join(one.text.split()))
        page = next(read, None)
        if page is not None and quote:
            found.append({**source, "uri": page.uri})
    return found
