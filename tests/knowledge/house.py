"""Documents of workspaces over a database of either kind, and an embedder without a model."""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Sequence

from service.knowledge import Knowledge
from service.knowledge.documents import Documents, Limits, NewDocument
from service.knowledge.indexing import Indexing
from service.knowledge.search import RunKnowledge
from service.knowledge.vectors import NoVectors, Why
from service.knowledge.words import indexed, stems
from service.store.database import Database, Row
from service.text.stop_words import STOP_WORDS
from service.types import DEFAULT_WORKSPACE
from tests.tables import create_tables

ANYTHING = Limits(1_000, 100 * 1024 * 1024, 100_000)
AGENT = "support"
# Words of one meaning, which the embedder puts at one place: what a model has learnt, a test has to be told.
MEANINGS = (
    "refund money back reimburse return payment",
    "delete remove erase trash bin discard",
    "slow speed bandwidth fast throughput",
)

STOP_STEMS = frozenset(stems(sorted(STOP_WORDS)))


class DeterministicEmbedder:
    """Vectors of hashed stems and of their meanings; the same text has the same vector everywhere.

    Nobody pays for them. `refuses`: why there are none for now.
    """

    def __init__(self, name: str = "deterministic", size: int = 512) -> None:
        self.name = name
        self.refuses: Why | None = None
        self.asked: list[str] = []
        self._size = size
        self._meanings = {stem: f"meaning {n}" for n, words in enumerate(MEANINGS) for stem in indexed(words)}

    def of_workspace(self, workspace_id: str, agent: str) -> DeterministicEmbedder:
        return self

    def refusal(self, workspace_id: str, agent: str, tokens: int) -> Why | None:
        return self.refuses

    def embed(self, text: str) -> array[float] | None:
        return None if self.refuses else self.embed_all([text])[0]

    def embed_all(self, texts: Sequence[str]) -> list[array[float]]:
        if self.refuses:
            raise NoVectors(self.refuses)
        self.asked += texts
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> array[float]:
        numbers = [0.0] * self._size
        for stem in set(indexed(text)) - STOP_STEMS:
            for feature in (stem, self._meanings.get(stem, stem)):
                code = zlib.crc32(feature.encode())
                numbers[code % self._size] += 1.0 if code & 0x10000 else -1.0
        length = math.hypot(*numbers) or 1.0
        return array("f", [number / length for number in numbers] if any(numbers) else [1.0, *numbers[1:]])


class House:
    """Documents of workspaces in one database."""

    def __init__(
        self,
        url: str,
        embedder: DeterministicEmbedder | None = None,
        limits: Limits = ANYTHING,
        *,
        create: bool = True,
    ) -> None:
        self.db = Database(url)
        if create:
            create_tables(self.db.engine)
        self.embedder = embedder
        self.changes: list[str] = []
        self.documents = Documents(self.db, limits, embedder, self.changes.append)
        self.indexing = Indexing(self.db, embedder, self.changes.append)

    def add(self, name: str, text: str | bytes, workspace: str = DEFAULT_WORKSPACE, **fields: object) -> str:
        """Add a document; return its id."""
        data = text if isinstance(text, bytes) else text.encode()
        kind = str(fields.pop("kind", "markdown"))
        new = NewDocument(name, kind, data, **fields)  # type: ignore[arg-type]
        agent = AGENT
        prepared = self.documents.prepare(workspace, agent, new)
        return str(self.db.transact(lambda tx: self.documents.write(tx, prepared))["id"])

    def knowledge(self, workspace: str = DEFAULT_WORKSPACE, folder: Knowledge | None = None) -> RunKnowledge:
        return RunKnowledge(folder, self.db, self.embedder, workspace, AGENT)

    def titles(self, query: str, workspace: str = DEFAULT_WORKSPACE, **options: object) -> list[str]:
        return [one.title for one in self.knowledge(workspace).search(query, **options)]  # type: ignore[arg-type]

    def index(self, folder: Knowledge | None = None) -> int:
        """Embed everything that has no vector; return how many."""
        scopes: list[Row] = [*self.indexing.scopes()]
        if folder is not None:
            scopes = [one for one in scopes if one["workspace_id"]] + [{"workspace_id": "", "agent": AGENT}]
        return sum(
            self.indexing.embed(scope, self.indexing.texts(scope, folder), lambda done: None)
            for scope in scopes
        )

    def close(self) -> None:
        self.db.close()
