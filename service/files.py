"""Images and documents in a conversation: put aside where it begins, and back where a model is asked.

In between, a block holds a reference in place of the content: its media type, size and digest. The content itself is
stored once for each of its owners (`service.store.files`). Pure functions over messages of the Messages API.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Any, NamedTuple

from service.text import exact_json
from service.types import Block, Message

KEPT = "kept"  # type of a source that is a reference
FILE_TYPES = ("image", "document")
MAX_FILES = 100  # images and documents of a prompt, as the Messages API bounds images
MAX_BYTES = 32 * 1024 * 1024  # characters in base64 of all of them: the API takes no larger request
# Tokens until the provider has counted them. An image has one for 28 by 28 pixels, and 4,784 at most after it has been
# scaled down (its page "Vision"); a page of a PDF is text and an image, some 3,000 tokens for 50 to 100 KB.
IMAGE_TOKENS, PDF_BYTES_PER_TOKEN = 4_784, 20
LEFT_OUT = "[{type} {media_type} of {size} bytes, left out here]"


class File(NamedTuple):
    """Image or document: `data` is its content in base64."""

    digest: str
    media_type: str
    size: int
    data: str


Files = dict[str, File]  # by digest


def put_aside(messages: Sequence[Message]) -> tuple[tuple[Message, ...], Files]:
    """Return messages with references in place of content in base64, and the content."""
    files: Files = {}

    def reference(block: Block) -> Block:
        source = block["source"]
        if source.get("type") != "base64":
            return block
        content = a2b_base64(source["data"])
        file = File(sha256(content).hexdigest(), source["media_type"], len(content), source["data"])
        files[file.digest] = file
        return {**block, "source": {"type": KEPT, **_shown(file._asdict())}}

    return tuple(_replaced(messages, reference)), files


def put_back(messages: Sequence[Message], data: Mapping[str, str], left_out: int = 0) -> list[Message]:
    """Return messages with the content, by digest, in place of references.

    Words take the place of content that is not given, and of the first `left_out` references.

    The API takes citations on all documents of a request or on none: where one has them, all get them.
    """
    number = count(1)
    cited = any((block.get("citations") or {}).get("enabled") for block in _file_blocks(messages))

    def content(block: Block) -> Block:
        source = block["source"]
        if cited and block["type"] == "document":
            block = {**block, "citations": {"enabled": True}}
        if source.get("type") != KEPT:
            return block
        found = data.get(source["digest"])
        if next(number) <= left_out or found is None:
            return {"type": "text", "text": LEFT_OUT.format(**{**source, "type": block["type"]})}
        return {**block, "source": {"type": "base64", "media_type": source["media_type"], "data": found}}

    return list(_replaced(messages, content))


def references(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """List the references in messages, as the API shows them: `type`, `media_type`, `size` and `digest`."""
    kept = (block for block in _file_blocks(messages) if block["source"].get("type") == KEPT)
    return [{"type": block["type"], **_shown(block["source"])} for block in kept]


def to_leave_out(messages: Sequence[Message]) -> int:
    """Return how many of the first references in messages do not fit one request with those after them, and the rest.

    The last one always does: a request that is too large for the model is an error, but no answer about a file that
    the model was not shown.
    """
    found = references(messages)
    left = MAX_BYTES - len(exact_json.dumps(messages)) if found else 0
    for fitting, one in enumerate(reversed(found)):
        left -= -(-one["size"] // 3) * 4
        if fitting and (left < 0 or fitting == MAX_FILES):
            return len(found) - fitting
    return 0


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Estimate the tokens of the files in messages, whose references say nothing about them."""
    return sum(
        IMAGE_TOKENS if one["type"] == "image" else max(IMAGE_TOKENS, one["size"] // PDF_BYTES_PER_TOKEN)
        for one in references(messages)
    )


def _shown(reference: Mapping[str, Any]) -> dict[str, Any]:
    return {name: reference[name] for name in ("media_type", "size", "digest")}


def _file_blocks(messages: Sequence[Message]) -> Iterator[Block]:
    for message in messages:
        yield from _files_in(message["content"])


def _files_in(content: Any) -> Iterator[Block]:
    """Yield the images and documents in content, also in tool results and in documents of several parts."""
    for block in content if isinstance(content, list | tuple) else ():
        kind = block.get("type")
        if kind in FILE_TYPES and isinstance(block.get("source"), Mapping):
            yield block
            yield from _files_in(block["source"].get("content"))
        elif kind == "tool_result":
            yield from _files_in(block.get("content"))


def _replaced(messages: Sequence[Message], change: Callable[[Block], Block]) -> Iterator[Message]:
    """Yield messages with each image and document changed; those without any as they are."""
    for message in messages:
        if next(_files_in(message["content"]), None) is None:
            yield message
        else:
            yield {**message, "content": _changed(message["content"], change)}


def _changed(content: Any, change: Callable[[Block], Block]) -> Any:
    if not isinstance(content, list | tuple):
        return content
    found = []
    for block in content:
        if block.get("type") in FILE_TYPES and isinstance(block.get("source"), Mapping):
            if "content" in block["source"]:
                parts = _changed(block["source"]["content"], change)
                block = {**block, "source": {**block["source"], "content": parts}}
            block = change(block)
        elif block.get("type") == "tool_result":
            block = {**block, "content": _changed(block.get("content"), change)}
        found.append(block)
    return found
