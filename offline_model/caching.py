"""Prompt cache accounting as upstream: prefixes up to a `cache_control` mark are written, then read.

A request is split into blocks: tools, then system, then messages. Every mark ends a prefix; the longest known prefix
is read, the blocks between it and the last mark are written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from offline_model import token_estimate
from offline_model.shapes import Json

LOOK_BACK = 20  # blocks before a mark that may end a known prefix, as upstream
MAX_PREFIXES = 20_000
SECONDS = {"5m": 300.0, "1h": 3600.0}


@dataclass(frozen=True)
class Cached:
    """Input tokens of a request by cache use; `fresh` is billed as input_tokens."""

    fresh: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0

    def usage(self, output: int, tier: str = "standard") -> Json:
        """Return the complete usage object."""
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
    """Request up to one block: hash, length in tokens, and the mark's TTL, if any."""

    key: bytes
    length: int
    ttl: str | None


def blocks(body: Json) -> Iterator[tuple[str, Any]]:
    """Yield (role, block) in upstream's prompt order."""
    for tool in body.get("tools") or ():
        yield "tool", tool
    for role, content in [
        ("system", body.get("system") or ""),
        *((m["role"], m["content"]) for m in body["messages"]),
    ]:
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield role, block


def marks(body: Json) -> int:
    """Count a request's cache marks; upstream allows four."""
    return sum("cache_control" in b and b["cache_control"] is not None for _, b in blocks(body))


class PromptCache:
    """Known prefixes per model and key, each until its TTL ends."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._until: dict[bytes, tuple[float, float]] = {}
        self._ahead = 0.0  # seconds added to the clock by `forward`

    def forward(self, seconds: float) -> None:
        """Advance the clock, to simulate a day in minutes."""
        self._ahead += seconds

    def split(self, body: Json, key: str) -> Cached:
        """Split a request's input into cached and fresh tokens, and store its marked prefixes."""
        total = token_estimate.of_request(body)
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
        """Return the tokens of the longest known prefix within `LOOK_BACK` of a mark, and renew its TTL."""
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
    """Build one prefix per block. Marks are excluded from the hash, as they move between calls."""
    running = hashlib.blake2b(seed.encode(), digest_size=16)
    found: list[Prefix] = []
    length = 0
    for role, block in blocks(body):
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        running.update(role.encode() + orjson.dumps(bare))
        length += token_estimate.of_json(bare) if role == "tool" else token_estimate.of_block(bare)
        mark = block.get("cache_control")
        found.append(Prefix(running.digest(), length, (mark.get("ttl") or "5m") if mark else None))
    top = body.get("cache_control")
    if top and found:
        found[-1] = Prefix(found[-1].key, found[-1].length, top.get("ttl") or "5m")
    return found
