"""Images and documents as clients of other APIs send them, checked: blocks of the Messages API come out.

Addresses are refused. An address may answer differently when it is counted, asked and asked again after a crash, so
neither a hold nor a resumed run could rely on it, and a document behind it has no bound.
"""

from __future__ import annotations

import re
from binascii import Error as NoBase64
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from typing import Any

from service.errors import TooLarge, fault
from service.files import MAX_FILES, Files, put_aside, references
from service.text import exact_json
from service.types import Block, Message

MAX_IMAGE = 5 * 1024 * 1024  # bytes of an image, as the Messages API bounds it
MAX_PDF = 24 * 1024 * 1024  # bytes of a PDF: 32 MiB in base64
MAX_REST = 4 * 1024 * 1024  # bytes of a conversation without its files: more than any model reads
PDF = "application/pdf"
NO_FILE_ID = "has a file by its id: all callers share an account there; send the content"  # at an upstream
NO_ADDRESS = "must hold the content itself, in base64: an address is not read"
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_NICKNAMES = {"image/jpg": "image/jpeg"}  # as many clients call it
_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "image/png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": lambda head: head.startswith(b"\xff\xd8\xff"),
    "image/gif": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
    "image/webp": lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP",
    PDF: lambda head: head.startswith(b"%PDF-"),
}
IMAGES = tuple(name for name in _SIGNATURES if name != PDF)


def image(media_type: str, data: str, where: str) -> Block:
    """Return an image block. `where`: pointer to the data, for errors. Raises `Invalid`."""
    if media_type not in IMAGES:
        raise fault(where, f"must be one of {', '.join(IMAGES)}")
    return _block("image", media_type, data, where, MAX_IMAGE)


def pdf(media_type: str, data: str, where: str, *, title: str | None = None) -> Block:
    """Return a document block of a PDF. `where`: pointer to the data, for errors. Raises `Invalid`."""
    if media_type != PDF:
        raise fault(where, f"must be {PDF}")
    block = _block("document", media_type, data, where, MAX_PDF)
    return {**block, "title": title} if title else block


def from_data_url(url: str, where: str) -> tuple[str, str]:
    """Return the media type and the base64 text of a data URL. Raises `Invalid`, also for any other address."""
    match = _DATA_URL.match(url)
    if match is None:
        raise fault(where, f"{NO_ADDRESS}; send a data URL, such as data:image/png;base64,…")
    media_type = match[1].lower()
    return _NICKNAMES.get(media_type, media_type), url[match.end() :]


def without_files(
    messages: Sequence[Message], where: str = "/messages"
) -> tuple[tuple[Message, ...], Files | None]:
    """Return a conversation with references in place of its files, and the files: `RunRequest.messages` and `files`.

    `where`: pointer to the conversation, for errors. Raises `Invalid` for too many files, and `TooLarge` for too long
    a conversation besides them.
    """
    kept, files = put_aside(messages)
    if len(references(kept)) > MAX_FILES:
        raise fault(where, f"must not have more than {MAX_FILES} images and documents")
    if len(exact_json.dumps(kept)) > MAX_REST:
        raise TooLarge(f"A conversation may have {MAX_REST} bytes at most besides its images and documents.")
    return kept, files or None


def _block(kind: str, media_type: str, data: str, where: str, most: int) -> Block:
    try:
        content = a2b_base64(data, strict_mode=True)
    except (NoBase64, ValueError):  # the latter for characters beyond ASCII
        raise fault(where, "must be base64") from None
    if not content:
        raise fault(where, "must not be empty")
    if len(content) > most:
        raise fault(where, f"must not have more than {most} bytes, decoded")
    if not _SIGNATURES[media_type](content[:16]):
        raise fault(where, f"is no {media_type}, by its first bytes")
    source: dict[str, Any] = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": kind, "source": source}
