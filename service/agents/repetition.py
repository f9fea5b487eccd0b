"""Detection of a loop: tool calls that repeat with the same results."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from service.tools import ToolResult
from service.types import Block, Message

# Two equal calls may be a retry, or a look before and after something else. The third in a row with the same result
# shows that the model does not use the result, so a fourth would not help either.
TIMES = 3
PERIODS = (1, 2)  # turns in one round of a loop: the same turn again, or two turns in alternation
NOTICE = (
    f"You have made these calls {TIMES} times in a row, with the same results each time: {{names}}. You may call no "
    "more tools. Answer now with what you have, and say what is missing."
)


class LoopDetector:
    """Detector of repeated turns of one conversation. A turn is a reply's calls (name, arguments) and their results."""

    def __init__(self) -> None:
        self._turns: deque[list[tuple[Any, ...]]] = deque(maxlen=TIMES * max(PERIODS))

    def add(self, uses: Sequence[Block], results: Sequence[ToolResult]) -> tuple[str, ...]:
        """Add a turn; return the names of the tools in a loop, empty without one."""
        calls = zip(uses, results, strict=True)
        self._turns.append([(use["name"], use["input"], one.ok, one.content) for use, one in calls])
        for period in PERIODS:
            recent = list(self._turns)[-TIMES * period :]
            if len(recent) == TIMES * period and recent[:-period] == recent[period:]:
                return tuple(dict.fromkeys(call[0] for turn in recent for call in turn))
        return ()


def with_notice(turn: Message, names: Sequence[str]) -> Message:
    """Return the turn of tool results with a notice of the loop after them."""
    notice = {"type": "text", "text": NOTICE.format(names=", ".join(names))}
    return {**turn, "content": [*turn["content"], notice]}
