"""Texts in place of tools' results: a case names a tool, which is then not called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from service.tools import ToolContext, ToolResult, ToolRunner
from service.tools.runner import Invocation


class InjectingRunner(ToolRunner):
    """Caller of tools that gives a case's texts as results. A case is known by the user whose runs it has.

    Permission, approval, taint and claim come before the call, so they are those of the tool itself.
    """

    def __init__(self, called: Callable[[str, bool, float], None] = lambda tool, ok, ms: None) -> None:
        super().__init__(called=called)
        self._texts: dict[str, Mapping[str, str]] = {}

    def inject(self, user_id: str, texts: Mapping[str, str]) -> None:
        """Give these texts, by tool, to the runs of a user."""
        self._texts[user_id] = texts

    def call_each(
        self, uses: Sequence[Invocation], given_up_at: Callable[[], float] = lambda: math.inf
    ) -> list[ToolResult]:
        return super().call_each([self._injected(use) for use in uses], given_up_at)

    def _injected(self, use: Invocation) -> Invocation:
        text = self._texts.get(use.context.user_id, {}).get(use.tool.name)
        if text is None:
            return use

        def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
            return text

        return use._replace(tool=replace(use.tool, run=run))
