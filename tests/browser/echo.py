"""A model that answers with the question, so that a test decides what an answer looks like."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.llm.wire_server import Exchange, WireServer, end, start, stream, text_events, whole

WRITER = """\
description: Answers with the question
pattern: single
tier: {default: simple, ask: false}
limits: {steps: 1, seconds: 60}
"""


class Echo:
    """Streams the question back, a word at a time; `pace` is how many seconds a word takes."""

    def __init__(self) -> None:
        self.pace = 0.0
        self._server = WireServer(self._answer)
        self.url = self._server.url

    @contextmanager
    def standing(self) -> Iterator[Echo]:
        yield self
        self._server.stop()

    def agents(self, home: Path) -> Path:
        """A folder with one agent, `writer`."""
        folder = home / "agents" / "writer"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.yaml").write_text(WRITER)
        (folder / "prompt.md").write_text("Repeat the question.")
        return folder.parent

    def _answer(self, exchange: Exchange) -> None:
        if exchange.head.startswith(b"GET"):
            return whole({"data": []})(exchange)
        words = re.findall(r"\S+\s*|\s+", _question(exchange.json["messages"][-1]["content"]))
        stream(self._events(words))(exchange)

    def _events(self, words: list[str]) -> Iterator[dict[str, Any]]:
        for event in (start(), *text_events(*words), *end()):
            if event["type"] == "content_block_delta":
                time.sleep(self.pace)
            yield event


def _question(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
