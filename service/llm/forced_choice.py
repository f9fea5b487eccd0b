"""Forced tool choice: which models can be made to call a tool. Thinking excludes it, so a forced call is without."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Models whose thinking can be switched off. The others refuse a forced call (pages of each model on
# platform.claude.com, "What's new", as of 2026-11-28), so an unknown one is not asked for it.
_TAKING = re.compile(
    r"(?:offline-)?claude-(?:haiku-(?:4-5|5-5)|sonnet-(?:4-[56]|5)|opus-(?:4-[5-8]|5))(?:-20[0-9]{6})?"
)


def taking_forced(models: Sequence[str]) -> tuple[str, ...]:
    """Filter models for those that can be made to call a tool."""
    return tuple(model for model in models if _TAKING.fullmatch(model))
