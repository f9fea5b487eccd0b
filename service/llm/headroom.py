"""Headroom: the share of a provider's rate limits that is left, as the headers of its answers tell it.

Anthropic: https://platform.claude.com/docs/en/api/rate-limits#response-headers; OpenAI:
https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Headers of a limit and of what remains of it, by kind.
_PAIRS: Mapping[str, tuple[tuple[bytes, bytes], ...]] = {
    "requests": (
        (b"anthropic-ratelimit-requests-limit", b"anthropic-ratelimit-requests-remaining"),
        (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests"),
    ),
    "tokens": (
        (b"anthropic-ratelimit-tokens-limit", b"anthropic-ratelimit-tokens-remaining"),
        (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens"),
    ),
    "input_tokens": (
        (b"anthropic-ratelimit-input-tokens-limit", b"anthropic-ratelimit-input-tokens-remaining"),
    ),
    "output_tokens": (
        (b"anthropic-ratelimit-output-tokens-limit", b"anthropic-ratelimit-output-tokens-remaining"),
    ),
}
LIMITS = frozenset(name for pairs in _PAIRS.values() for pair in pairs for name in pair)
MAX_DIGITS = 15


def headroom(limits: Mapping[bytes, bytes]) -> tuple[tuple[str, float], ...]:
    """Return the share that is left, from 0 to 1, of each limit whose headers are there and can be read."""
    found = []
    for kind, pairs in _PAIRS.items():
        for limit, remaining in pairs:
            most, left = _count(limits.get(limit)), _count(limits.get(remaining))
            if most and left is not None:
                found.append((kind, min(1.0, left / most)))
    return tuple(found)


def _count(value: bytes | None) -> int | None:
    if value is None or len(value) > MAX_DIGITS or re.fullmatch(b"[0-9]+", value) is None:
        return None
    return int(value)
