"""Prompt caching as upstream bills it: prefixes up to a `cache_control` mark are written, then read.

A request is tools, then system, then messages, cut into blocks. Every mark names a prefix; the longest
one that is known is read, what lies between it and the last mark is written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from offline_model import tokens
from offline_model.shapes import Json

LOOK_BACK = 20  # blocks before a mark in which an earlier prefix is looked for, as upstream
MAX_PREFIXES = 20_000
SECONDS = {"5m": 300.0, "1h": 3600.0}


@dataclass(frozen=True)
class Cached:
    """How a request's input splits. All in tokens; `fresh` is billed as input_tokens."""

    fresh: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0

    def usage(self, output: int, tier: str = "standard") -> Json:
        """The usage object, complete."""
        return {
            "input_tokens": self.fresh,
            "cache_creation_input_tokens": self.written_5m + self.written_1h,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
            "output_tokens": output,
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": tier,
            "inference_geo": "offline",
            "speed": "standard",
        }


@dataclass(frozen=True)
class Prefix:
    """The request up to one block: its hash, its length in tokens, and the mark's ttl if it has one."""

    key: bytes
    length: int
    ttl: str | None


def blocks(body: Json) -> Iterator[tuple[str, Any]]:
    """(role, block) in the order in which upstream lays a prompt out."""
    for tool in body.get("tools") or ():
        yield "tool", tool
    for role, content in [
        ("system", body.get("system") or ""),
        *((m["role"], m["content"]) for m in body["messages"]),
    ]:
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield role, block


def marks(body: Json) -> int:
    """How many cache marks a request carries; upstream allows four."""
    return sum("cache_control" in b and b["cache_control"] is not None for _, b in blocks(body))


class PromptCache:
    """The prefixes that are known, per model and key, each until its ttl ends."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._until: dict[bytes, tuple[float, float]] = {}
        self._ahead = 0.0  # seconds by which our clock was put forward

    def forward(self, seconds: float) -> None:
        """Go on as if so much time had passed: a day can be replayed in minutes."""
        self._ahead += seconds

    def split(self, body: Json, key: str) -> Cached:
        """Bill a request's input against what is known, and remember what it marks."""
        total = tokens.of_request(body)
        if b'"cache_control"' not in orjson.dumps(body):
            return Cached(total)
        prefixes = _prefixes(body, f"{body['model']}\0{key}")
        marked = [i for i, p in enumerate(prefixes) if p.ttl and p.length >= self._least]
        if not marked:
            return Cached(total)
        now = time.monotonic() + self._ahead
        read = self._longest(prefixes, marked, now)
        written = {"5m": 0, "1h": 0}
        done = read
        for prefix in (prefixes[i] for i in marked):
            self._remember(prefix, now)
            if prefix.length > done and prefix.ttl:
                written[prefix.ttl] += prefix.length - done
                done = prefix.length
        return Cached(total - done, read, written["5m"], written["1h"])

    def _longest(self, prefixes: list[Prefix], marked: list[int], now: float) -> int:
        """Tokens of the longest known prefix within reach of a mark; reading it renews it."""
        near = {i for mark in marked for i in range(max(0, mark - LOOK_BACK), mark + 1)}
        for i in sorted(near, reverse=True):
            until, seconds = self._until.get(prefixes[i].key, (0.0, 0.0))
            if until > now:
                self._until[prefixes[i].key] = (now + seconds, seconds)
                return prefixes[i].length
        return 0

    def _remember(self, prefix: Prefix, now: float) -> None:
        seconds = SECONDS[prefix.ttl or "5m"]
        self._until.pop(prefix.key, None)
        self._until[prefix.key] = (now + seconds, seconds)
        if len(self._until) > MAX_PREFIXES:
            del self._until[next(iter(self._until))]


def _prefixes(body: Json, seed: str) -> list[Prefix]:
    """One prefix per block. The marks themselves are not part of the hash: they move between calls."""
    running = hashlib.blake2b(seed.encode(), digest_size=16)
    found: list[Prefix] = []
    length = 0
    for role, block in blocks(body):
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        running.update(role.encode() + orjson.dumps(bare))
        length += tokens.of_json(bare) if role == "tool" else tokens.of_block(bare)
        mark = block.get("cache_control")
        found.append(Prefix(running.digest(), length, (mark.get("ttl") or "5m") if mark else None))
    top = body.get("cache_control")
    if top and found:
        found[-1] = Prefix(found[-1].key, found[-1].length, top.get("ttl") or "5m")
    return found
