"""Usage as an answer reports it, validated: a missing figure is not a zero."""

from __future__ import annotations

from typing import Any

from service.types import Usage

MAX_FIGURE = 1_000_000_000
_WHERE = {  # figure → path to its object, in the field order of `Usage`
    "input_tokens": (),
    "output_tokens": (),
    "cache_read_input_tokens": (),
    "cache_creation_input_tokens": (),
    "ephemeral_1h_input_tokens": ("cache_creation",),
    "web_search_requests": ("server_tool_use",),  # the only server tool billed beyond tokens
}


class ReportedUsage:
    """Usage totals accumulated over events: the highest value of each figure counts."""

    def __init__(self) -> None:
        self._figures: dict[str, int] = {}
        self.total = Usage()  # the figures so far, 0 for unreported ones
        self.valid = True  # False once a figure was not a number or decreased

    def add(self, usage: Any) -> None:
        """Add the `usage` object of a message or event; null is ignored."""
        if usage is None:
            return
        if not isinstance(usage, dict):
            self.valid = False
            return
        for name, path in _WHERE.items():
            holder: Any = usage
            for part in path:
                holder = holder.get(part) or {}
            if not isinstance(holder, dict):
                self.valid = False
            elif (figure := holder.get(name)) is not None:
                self._take(name, figure)
        total = Usage(*[self._figures.get(name, 0) for name in _WHERE])
        hour = min(total.cache_creation_1h_input_tokens, total.cache_creation_input_tokens)
        self.total = total._replace(cache_creation_1h_input_tokens=hour)

    def reports(self, usage: Any, name: str) -> bool:
        """Return whether the object has a valid figure of that name."""
        return isinstance(usage, dict) and _is_figure(usage.get(name))

    @property
    def known(self) -> bool:
        """Return whether the prompt's size was reported, without which no estimate is possible."""
        total = self.total
        prompt = total.input_tokens + total.cache_read_input_tokens + total.cache_creation_input_tokens
        return "input_tokens" in self._figures and prompt > 0

    def _take(self, name: str, figure: Any) -> None:
        before = self._figures.get(name, 0)
        if not _is_figure(figure) or figure < before:
            self.valid = False
        else:
            self._figures[name] = figure


def _is_figure(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FIGURE
