"""Search of a run: the folder of its agent together with the documents of its workspace, by words and by meaning."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from service.knowledge.folder import Knowledge
from service.knowledge.passages import Passage
from service.knowledge.vectors import MAX_QUERY, Embedder, fused
from service.knowledge.words import CANDIDATES, Found, Statistics, query_terms, quoted, ranked
from service.store import knowledge as rows
from service.store import knowledge_vectors as vectors
from service.store import knowledge_words as words
from service.store.database import Database, Row, Transaction
from service.text.search_words import Term

NO_DOCUMENTS = Knowledge(())


class RunKnowledge(Knowledge):
    """Knowledge of one run. `note` is told of each text found that its workspace's admin has not marked as trusted."""

    def __init__(
        self,
        folder: Knowledge | None,
        db: Database,
        embedder: Embedder | None,
        workspace_id: str,
        agent: str,
    ) -> None:
        self._folder = folder or NO_DOCUMENTS
        super().__init__(self._folder.passages)
        self._db = db
        self._embedder = embedder
        self._whose = (workspace_id, agent)
        self.note: Callable[[str], object] = lambda text: None
        self.found_untrusted = False

    def for_call(self) -> RunKnowledge:
        """Return the same, for one call of a tool, whose result it tells whether it may be trusted."""
        return RunKnowledge(self._folder, self._db, self._embedder, *self._whose)

    def for_pattern(self, note: Callable[[str], object]) -> RunKnowledge:
        """Return the same, for a pattern that reads passages without a tool."""
        found = self.for_call()
        found.note = note
        return found

    @cached_property
    def categories(self) -> frozenset[str]:
        """Categories of the folder and of the workspace."""
        return self._folder.categories | self._db.query(lambda tx: rows.categories(tx, *self._whose))

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts in the folder and in documents marked as trusted, to which answers may link."""
        return self._folder.hosts | self._db.query(lambda tx: rows.trusted_hosts(tx, *self._whose))

    def search(self, query: str, category: str | None = None, limit: int = 4) -> list[Passage]:
        """Find the best passages, best first. Raises `DatabaseUnavailable`."""
        terms = query_terms(query)
        if limit < 1 or not query.strip():
            return []
        scopes = self._db.query(lambda tx: rows.scopes_of(tx, *self._whose))
        vector = self._vector(query, scopes)
        own = scopes.get(self._whose[0])
        if vector is None and (own is None or not own["documents"]):
            return self._folder.search(query, category, limit)
        found = self._db.query(lambda tx: self._find(tx, scopes, terms, vector, category))
        best = quoted(found[:limit], terms)
        for one in best:
            if not one.trusted:
                self.found_untrusted = True
                self.note(f"{one.title}\n{one.text}")
        return best

    def _vector(self, query: str, scopes: Mapping[str, Row]) -> array[float] | None:
        """Return the query's vector; None: it is searched by words alone, as without an answer in time."""
        if self._embedder is None or not any(map(self._has_vectors, scopes.values())):
            return None
        return self._embedder.embed(query[:MAX_QUERY])

    def _has_vectors(self, scope: Row) -> bool:
        return self._embedder is not None and scope["model"] == self._embedder.name

    def _find(
        self,
        tx: Transaction,
        scopes: Mapping[str, Row],
        terms: Sequence[Term],
        vector: array[float] | None,
        category: str | None,
    ) -> list[Passage]:
        by_words = self._by_words(tx, scopes.get(self._whose[0]), terms, category) if terms else []
        if vector is None:
            return by_words
        return fused(by_words, self._by_meaning(tx, scopes, vector, category))

    def _by_words(
        self, tx: Transaction, scope: Row | None, terms: Sequence[Term], category: str | None
    ) -> list[Passage]:
        sources = [found] if (found := self._folder.found(terms, category)) is not None else []
        if scope is not None and scope["documents"]:
            counts = words.having(tx, scope, terms)
            some = words.candidates(tx, scope, terms, counts, category, CANDIDATES) if any(counts) else []
            statistics = Statistics(scope["passages"], scope["tokens"], counts)
            sources.append(Found([_passage(row) for row in some], statistics))
        return ranked(terms, sources)[:CANDIDATES]

    def _by_meaning(
        self, tx: Transaction, scopes: Mapping[str, Row], vector: array[float], category: str | None
    ) -> list[Passage]:
        assert self._embedder is not None
        found: list[tuple[float, Passage]] = []
        for workspace_id, scope in scopes.items():
            if not self._has_vectors(scope):
                continue
            near = dict(vectors.nearest(tx, scope, self._embedder.name, vector, CANDIDATES))
            if workspace_id == rows.FOLDER:
                for key, cosine in near.items():
                    some = self._folder.by_digest.get(key, ())
                    found += [(cosine, one) for one in some if category in (None, one.category)]
            else:
                kept = rows.of_digests(tx, *self._whose, list(near), category)
                found += [(near[row["digest"]], _passage(row)) for row in kept]
        return [one for _, one in sorted(found, key=lambda pair: -pair[0])][:CANDIDATES]


def _passage(row: Row) -> Passage:
    return Passage(row["title"], row["uri"], row["text"], row["category"], trusted=bool(row["trusted"]))
