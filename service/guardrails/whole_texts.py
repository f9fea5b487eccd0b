"""Guardrails on whole texts: of messages to a model, of JSON, and of what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.guardrails.effort import Effort
from service.guardrails.filter import Matches, TextFilter, filtered
from service.guardrails.policy import SideSpec
from service.guardrails.vault import Vault
from service.text.exact_json import Number
from service.types import Block, Message

MAX_DEPTH = 256  # of JSON: more than arguments of calls have, see `service.runs.replies`
TOO_DEEP = "[too deep]"
_SKIPPED = frozenset({"thinking", "redacted_thinking"})  # signed by the provider, who wrote them
_NAMES = frozenset(
    {"type", "id", "name", "tool_use_id", "media_type", "signature", "digest", "cache_control"}
)


class WholeTexts:
    """Filter of whole texts by one side of the guardrails. Remembers texts, so that a conversation is read once.

    `acted` counts what was found in texts that were new. `effort`: what is left for those of a request or an answer.
    """

    def __init__(self, side: SideSpec, vault: Vault | None, effort: Effort | None = None) -> None:
        self._side = side
        self._vault = vault
        self.effort = effort or Effort()
        self._known: dict[str, str] = {}
        self.acted = Matches()

    def text(self, text: str) -> str:
        """Filter a text. Raises `Refused`."""
        if not text:
            return text
        known = self._known.get(text)
        if known is None:
            known, findings = filtered(text, self._side, self._vault, self.effort)
            self.acted.count(findings)
            self._known[text] = self._known[known] = known
        return known

    def remember(self, text: str) -> None:
        """Remember a text that was filtered as it arrived."""
        self._known[text] = text

    def cut(self, text: str) -> str:
        """Filter the beginning of a text, without what may be half of a match at its end."""
        text_filter = TextFilter(self._side, self._vault, self.effort)
        beginning = text_filter.feed(text)
        self.acted.count(text_filter.findings)
        return beginning

    def json(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        """Filter every text in JSON, names and numbers too; a number that is acted on becomes a text."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        if depth <= 0:
            return TOO_DEEP
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.json(item, depth - 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item, depth - 1) for item in value]
        figures = value.text if isinstance(value, Number) else str(value)
        return value if (written := self.text(figures)) == figures else written


def filtered_messages(
    messages: Sequence[Message], said: WholeTexts, found: WholeTexts, own: WholeTexts
) -> list[Message]:
    """Filter messages of the Messages API: results of tools by `found`, the model's turns by `own`, else by `said`."""
    return [
        {**one, "content": filtered_content(one["content"], said if one["role"] == "user" else own, found)}
        for one in messages
    ]


def filtered_content(content: Any, said: WholeTexts, found: WholeTexts) -> Any:
    """Filter the content of a message or of a system prompt: a text or blocks."""
    if isinstance(content, str):
        return said.text(content)
    if not isinstance(content, list | tuple):
        return content
    return [_block(block, said, found) for block in content]


def _block(block: Block, said: WholeTexts, found: WholeTexts) -> Block:
    kind = str(block.get("type", ""))
    if kind in _SKIPPED:
        return block
    if kind.endswith("tool_result"):
        return {**block, "content": _inside(block.get("content"), found)}
    if kind == "tool_use":
        return {**block, "input": said.json(block.get("input"))}
    inner: Block = _inside(block, said)
    return inner


def _inside(value: Any, texts: WholeTexts) -> Any:
    """Filter every text in a block, but for names of the protocol and content in base64."""
    if isinstance(value, str):
        return texts.text(value)
    if isinstance(value, list | tuple):
        return [_inside(one, texts) for one in value]
    if not isinstance(value, Mapping) or value.get("type") in ("base64", "kept"):
        return value
    return {
        name: item if name in _NAMES or name.startswith("encrypted") else _inside(item, texts)
        for name, item in value.items()
    }
