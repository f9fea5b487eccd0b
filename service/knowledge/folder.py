"""Knowledge of an agent's folder: its documents, read when the agent is loaded, and their index in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from service.guardrails.hosts import hosts_in
from service.knowledge.extract import Busy, Unreadable
from service.knowledge.formats import MAX_DOCUMENT, SUFFIXES, kind_of, read
from service.knowledge.passages import Passage, passages
from service.knowledge.vectors import digest
from service.knowledge.words import FolderIndex, Found, query_terms, quoted
from service.text.search_words import Term


class KnowledgeFault(ValueError):
    """Unreadable document; `path` is the file."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(detail)
        self.path = path


class Knowledge:
    """Passages and their index. Thread-safe and fork-safe: each process builds its own index."""

    found_untrusted = False  # the author of the agent has written all of it

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        self._index: FolderIndex | None = None

    @cached_property
    def categories(self) -> frozenset[str]:
        """Categories of the documents."""
        return frozenset(passage.category for passage in self.passages if passage.category)

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts in the documents, to which answers may link."""
        return frozenset().union(*(hosts_in(passage.text) for passage in self.passages))

    @cached_property
    def by_digest(self) -> dict[str, list[Passage]]:
        """Passages by what their vectors are found by."""
        found: dict[str, list[Passage]] = {}
        for one in self.passages:
            found.setdefault(digest(one.title, one.text), []).append(one)
        return found

    @classmethod
    def load(cls, folder: Path) -> Knowledge:
        """Load every document below `folder`; its first sub-folder is its category. Raises `KnowledgeFault`."""
        files = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
        documents = [path for path in files if not _exclusion(folder, path)]
        return cls([passage for path in documents for passage in _passages(folder, path)])

    def search(self, query: str, category: str | None = None, limit: int = 4) -> list[Passage]:
        """Find the best passages, best first; none for a query without a known word. Never raises."""
        terms = query_terms(query)
        if not terms or limit < 1 or not self.passages:
            return []
        return quoted(self._built().best(terms, category, limit), terms)

    def for_call(self) -> Knowledge:
        """Return this, for one call of a tool; see `RunKnowledge`."""
        return self

    def for_pattern(self, note: Callable[[str], object]) -> Knowledge:
        """Return this, for a pattern that reads passages without a tool; see `RunKnowledge`."""
        return self

    def found(self, terms: Sequence[Term], category: str | None) -> Found | None:
        """Return candidates, to be ranked with those of other sources; None: there are no passages."""
        return self._built().found(terms, category) if self.passages else None

    def _built(self) -> FolderIndex:
        index = self._index
        if index is None or index.pid != os.getpid():
            index = self._index = FolderIndex(self.passages)  # two threads may each build one: harmless
        return index


def excluded_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """List files that are not read as documents, with the reason; hidden ones only if they end as documents do."""
    for path in sorted(folder.rglob("*")):
        why = _exclusion(folder, path)
        if why and (kind_of(path.name) or not _hidden(folder, path)):
            yield path, f"is not read: {why}"


def _exclusion(folder: Path, path: Path) -> str:
    """Return the reason why a file is not read; empty for a document, and for a folder."""
    if path.is_dir():
        return "it is a link to a folder: put the folder in its place" if path.is_symlink() else ""
    if kind_of(path.name) is None:
        return f"its name does not end in {SUFFIXES}"
    if _hidden(folder, path):
        return "it is hidden, by a dot at the beginning of its name or its folder's"
    try:
        about = path.stat()
    except OSError:  # reported when the file is read
        return ""
    if not stat.S_ISREG(about.st_mode):
        return "it is no regular file"
    too_large = about.st_size > MAX_DOCUMENT
    return f"it is larger than {MAX_DOCUMENT // 1024**2} MiB: split it" if too_large else ""


def _hidden(folder: Path, path: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _passages(folder: Path, path: Path) -> Iterator[Passage]:
    relative = path.relative_to(folder)
    kind = kind_of(path.name)
    assert kind is not None  # others are excluded
    try:
        document = read(path.read_bytes(), kind, path.name)
    except Unreadable as error:
        raise KnowledgeFault(path, str(error)) from error
    except Busy:
        raise KnowledgeFault(path, "too many documents are being read at once: try again") from None
    except OSError as error:
        raise KnowledgeFault(path, f"cannot be read: {type(error).__name__}") from error
    category = relative.parts[0] if len(relative.parts) > 1 else ""
    return passages(document, f"knowledge/{relative.as_posix()}", category)
