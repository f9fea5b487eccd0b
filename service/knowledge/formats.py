"""Formats of documents: Markdown, plain text, HTML and PDF as text and its sections.

A section's body is a verbatim slice of the document's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath
from types import MappingProxyType
from typing import NamedTuple

from service.knowledge.extract import PAGE_END, Unreadable, extracted
from service.text.sanitise import storable

MAX_DOCUMENT = 10 * 1024 * 1024  # bytes
MAX_TITLE = 200  # characters
FORMATS: Mapping[str, str] = MappingProxyType(
    {".md": "markdown", ".txt": "text", ".html": "html", ".htm": "html", ".pdf": "pdf"}
)
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {"text/markdown": "markdown", "text/plain": "text", "text/html": "html", "application/pdf": "pdf"}
)
SUFFIXES = ".md, .txt, .html or .pdf"
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_CLOSING = re.compile(r"(?<=\s)#+$")  # closing sequence of a heading, but not "C#"
_KEPT = 64  # extracted documents that a process keeps: a reload of a folder reads the others' again


class Document(NamedTuple):
    """Text of a document. `kind`: how it is cut, as `markdown`, `text` or `pdf`."""

    title: str
    kind: str
    text: str


class Section(NamedTuple):
    """Part of a document under a heading of `level` (0: before the first one), or on a `page` (0: not of a PDF)."""

    level: int
    heading: str
    body: str
    page: int = 0


def kind_of(name: str) -> str | None:
    """Return the format that the ending of a file's name stands for, in upper or lower case."""
    return FORMATS.get(PurePath(name).suffix.lower())


def read(data: bytes, kind: str, name: str) -> Document:
    """Return a document of a file's content. Raises `Unreadable`, and `extract.Busy`."""
    if len(data) > MAX_DOCUMENT:
        raise Unreadable(f"is larger than {MAX_DOCUMENT // 1024**2} MiB: split it")
    stem = PurePath(name).stem.replace("-", " ").replace("_", " ").capitalize()[:MAX_TITLE]
    if kind in ("pdf", "html"):
        if kind == "html":
            _utf8(data)
        title, text = _extracted(kind, data)
        return Document(title[:MAX_TITLE] or stem, "pdf" if kind == "pdf" else "markdown", text)
    return Document(stem, kind, storable(_utf8(data)))


def sections(document: Document) -> Iterator[Section]:
    """Yield the sections of a document in order."""
    if document.kind == "markdown":
        yield from _markdown(document.text)
    elif document.kind == "pdf":
        for number, page in enumerate(document.text.split(PAGE_END), 1):
            yield Section(0, "", page, number)
    else:
        yield Section(0, "", document.text)


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None


@lru_cache(maxsize=_KEPT)
def _extracted(kind: str, data: bytes) -> tuple[str, str]:
    title, text = extracted(kind, data)
    return " ".join(storable(title).split()), storable(text)


def _markdown(text: str) -> Iterator[Section]:
    level, heading, body, fenced = 0, "", list[str](), False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        match = None if fenced else _HEADING.match(line)
        if match is None:
            body.append(line)
            continue
        yield Section(level, heading, "\n".join(body))
        level, body = len(match[1]), []
        heading = _CLOSING.sub("", match[2].rstrip()).rstrip()
    yield Section(level, heading, "\n".join(body))
