"""Context of a tool's call: its run, and the knowledge and notes that the tool may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Source = dict[str, str]  # {"title", "uri", "quote"}


class FoundPassage(Protocol):
    """Passage of an agent's knowledge, as a search returns it."""

    @property
    def title(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def source(self) -> Source: ...


class KnowledgeSearch(Protocol):
    """Search interface of an agent's knowledge, for tools."""

    @property
    def categories(self) -> frozenset[str]: ...
    @property
    def found_untrusted(self) -> bool: ...

    def search(self, query: str, category: str | None = None, limit: int = 4) -> Sequence[FoundPassage]: ...


class Note(NamedTuple):
    """Note about the caller. `untrusted`: its run held untrusted text when it was written."""

    key: str
    text: str
    updated_at: str
    untrusted: bool = False


class Notes(Protocol):
    """Notes about the caller of a run, for tools. Each method raises `ToolFailed`."""

    def list(self) -> Sequence[Note]:
        """List the notes by key, without their texts."""

    def read(self, key: str) -> Note | None: ...
    def write(self, key: str, text: str) -> None: ...
    def delete(self, key: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Call and run that a tool works for. `deadline` is in `time.monotonic()` seconds."""

    run_id: str
    user_id: str
    agent: str
    call_id: str
    deadline: float
    knowledge: KnowledgeSearch | None = None
    notes: Notes | None = None

    @property
    def idempotency_key(self) -> str:
        """Key shared by all attempts at this call; pass it to any system that must not act twice."""
        return f"{self.run_id}:{self.call_id}"
