"""Conversation export, written message by message: a long one is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from service.types import message_text

Messages = Iterable[Mapping[str, Any]]


def as_json(session: Mapping[str, Any], messages: Messages) -> Iterator[bytes]:
    """Write a session as one JSON object, with its `messages` last."""
    yield orjson.dumps(session)[:-1] + b',"messages":['
    for number, message in enumerate(messages):
        yield (b"," if number else b"") + orjson.dumps(message)
    yield b"]}"


def as_markdown(session: Mapping[str, Any], messages: Messages) -> Iterator[bytes]:
    """Write the title as a heading, and each message under its role, time and final status."""
    yield f"# {' '.join(session['title'].split()) or session['id']}\n".encode()
    for message in messages:
        ended = "" if message["status"] == "succeeded" else f", {message['status']}"
        yield f"\n**{message['role'].capitalize()}** ({message['created_at']}{ended})\n".encode()
        yield f"\n{message_text(dict(message))}\n".encode()
        for source in message["sources"]:
            yield f"\n- {source['title']} <{source['uri']}>".encode()
        if message["sources"]:
            yield b"\n"
