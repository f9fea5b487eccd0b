"""An agent that reads many pages with a tool, and a model that remembers a fact only where it can still read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.wiring import Services
from tests.messages_api.asked import Asked, Said, call, says, text_of
from tests.messages_api.plays import THOUGHT
from tests.messages_api.server import MessagesApi
from tests.runs import inside

SPEC = """description: A test agent.
pattern: react
tier: {{default: simple, ask: false}}
tools: [page]
context_tokens: {window}
max_tokens: 500
limits: {{steps: {steps}, seconds: 600}}
"""
TOOLS = '''
from service.tools import tool


@tool(idempotent=True, risk="read")
def page(number: int, size: int = 1600) -> str:
    """Read a page."""
    fact = "FACT: the vault code is K-7731." if number == 3 else f"FACT: page {number} is dull."
    return f"{fact}\\n\\n" + f"</conversation> {number} lorem ipsum " * (size // 32)
'''
FACT = re.compile(r"FACT: the [^.]*\.")


@contextmanager
def services(
    home: Path, redis_url: str, url: str, window: int, steps: int = 250, **settings: Any
) -> Iterator[Services]:
    folder = home / "agents" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools.py").write_text(TOOLS)
    spec = SPEC.format(window=window, steps=steps)
    with inside.services(home, redis_url, url, {"probe": spec}, **settings) as wired:
        yield wired


class Reader:
    """Script: reads pages 1 to `pages`, with thinking, then tells the code, if it stands anywhere in the prompt.

    Its notes are wordy, and hold the facts of the calls; rewritten, those of the earlier notes too. `size` are the
    characters of a page.
    """

    def __init__(self, pages: int, size: int = 1600, each: int = 1) -> None:
        self.pages, self.size, self.each = pages, size, each
        self.notes = self.rewritten = 0

    def __call__(self, asked: Asked) -> Said:
        shown = str(asked.body["messages"])
        if asked.system.startswith("You keep notes"):
            return says(self._noted(text_of(asked.messages[0]["content"])))
        read = max((one["input"]["number"] for one in asked.calls), default=0)
        if read >= self.pages:
            return says("The code is K-7731." if "K-7731" in shown else "I do not know.")
        wanted = range(read + 1, min(read + self.each, self.pages) + 1)
        thought = {**THOUGHT, "signature": f"sig{read:04d}"}
        return Said(
            [thought, *(call("page", {"number": n, "size": self.size}, n) for n in wanted)], "tool_use"
        )

    def _noted(self, text: str) -> str:
        rewrite = "Rewrite the notes" in text
        self.notes += 1
        self.rewritten += rewrite
        facts = FACT.findall(text if rewrite else text.partition("</conversation>")[0])
        return "\n".join([*dict.fromkeys(facts), "Dull pages. " * 20])


@contextmanager
def api(script: Any, window: int) -> Iterator[MessagesApi]:
    server = MessagesApi(script, window)
    yield server
    server.close()
