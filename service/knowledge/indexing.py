"""Indexing: documents cut again after a change of the rules, and vectors for what has none; without a gap for searches.

Each step may be the last one: what was made stays, and the next indexing goes on from there. Searches see the builds
and vectors of before until all new ones are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from service.knowledge.documents import RULES, built, built_fields, of_document
from service.knowledge.folder import Knowledge
from service.knowledge.formats import Document
from service.knowledge.vectors import BATCH, Embedders, embedded_text
from service.store import knowledge as rows
from service.store import knowledge_vectors as vectors
from service.store.database import Database, Row, Transaction
from service.types import DEFAULT_WORKSPACE, now_ms

PAGE = 500  # passages compared at once
Advance = Callable[[int], object]  # told how many passages are done


class Text(NamedTuple):
    """Passage to embed."""

    digest: str
    title: str
    text: str


@dataclass(slots=True)
class Indexing:
    """Indexing of one agent's documents in a workspace, or of its folder. `changed`: see `Documents`."""

    db: Database
    embedder: Embedders | None
    changed: Callable[[str], object]

    def scopes(self) -> list[Row]:
        """List agents with documents, by workspace; `rows.FOLDER` stands for a folder."""
        return self.db.query(rows.all_scopes)

    @property
    def by_meaning(self) -> bool:
        """Return whether passages get vectors: an endpoint is set, and the database can keep them."""
        return self.embedder is not None and self.db.query(vectors.available)

    def make_vectors(self) -> None:
        """Make the table of vectors, where pgvector was installed after the migration."""
        if self.embedder is not None:
            self.db.transact(vectors.make)

    def cut_again(self, scope: Row, advance: Advance) -> int:
        """Cut the documents that were cut by other rules; return how many. All take effect at once."""
        whose = scope["workspace_id"], scope["agent"]
        cut, waiting = 0, False
        for document in self._documents(*whose):
            waiting |= document["next_build"] is not None  # of an indexing that did not come to its end
            if document["rules"] != RULES:
                self._build_beside(document)
                cut += 1
            advance(document["passages"])
        if cut or waiting:
            self.db.transact(lambda tx: self._swap(tx, scope))
        while self.db.transact(lambda tx: rows.delete_unused(tx, *whose)):
            pass
        return cut

    def embed(self, scope: Row, texts: Iterable[Text], advance: Advance) -> int:
        """Embed what has no vector yet; return how many. Raises `NoVectors`; the next call goes on from there."""
        made, used = 0, set[str]()
        for page in _pages(texts):
            used.update(one.digest for one in page)
            asked = partial(
                vectors.known, scope=scope, model=self._model, digests=[one.digest for one in page]
            )
            known = self.db.query(asked)
            missing = [one for one in {one.digest: one for one in page}.values() if one.digest not in known]
            advance(len(page) - len(missing))
            for start in range(0, len(missing), BATCH):
                some = missing[start : start + BATCH]
                self._embed_some(scope, some)
                advance(len(some))
            made += len(missing)
        self.db.transact(lambda tx: self._use_model(tx, scope))
        self._tidy(scope, used)
        return made

    def index_vectors(self) -> list[str]:
        """Build the indexes that many vectors need; return their names."""
        return vectors.build_indexes(self.db, self._model)

    @property
    def _model(self) -> str:
        assert self.embedder is not None
        return self.embedder.name

    def _embed_some(self, scope: Row, some: Sequence[Text]) -> None:
        assert self.embedder is not None
        # An agent's folder is the service's own, as the workspace `default` is.
        embedder = self.embedder.of_workspace(scope["workspace_id"] or DEFAULT_WORKSPACE, scope["agent"])
        found = embedder.embed_all([embedded_text(one.title, one.text) for one in some])
        new = {one.digest: vector for one, vector in zip(some, found, strict=True)}
        self.db.transact(lambda tx: vectors.add(tx, scope, self._model, new))

    def texts(self, scope: Row, folder: Knowledge | None = None) -> Iterator[Text]:
        """Yield the passages of a workspace's documents that are searched, or those of a folder."""
        if scope["workspace_id"] == rows.FOLDER:
            found = folder.by_digest.items() if folder is not None else ()
            yield from (Text(digest, some[0].title, some[0].text) for digest, some in found)
        else:
            yield from (Text(row["digest"], row["title"], row["text"]) for row in self._passages(scope))

    def _passages(self, scope: Row) -> Iterator[Row]:
        read = partial(rows.digests, workspace_id=scope["workspace_id"], agent=scope["agent"], limit=PAGE)
        after = 0
        while page := self.db.query(partial(read, after=after)):
            yield from page
            after = page[-1]["id"]

    def _documents(self, workspace_id: str, agent: str) -> Iterator[Row]:
        read = partial(rows.page, workspace_id=workspace_id, agent=agent, limit=5, text=True)
        after: str | None = None
        while page := self.db.query(partial(read, after=after)):
            yield from page
            after = page[-1]["id"]

    def _build_beside(self, document: Row) -> None:
        """Cut a document into a build that no search reads yet."""
        build = max(now_ms(), document["build"] + 1)
        text = Document(document["title"], document["kind"], document["text"])
        made = built(document, text, build)
        about = {**built_fields(made, build), "build": document["build"], "next_build": build}
        del about["updated_at"]

        def work(tx: Transaction) -> None:
            rows.lock(tx, document["workspace_id"], document["agent"])
            now = rows.get(tx, document["workspace_id"], document["agent"], document["id"])
            # Not where it was replaced meanwhile, nor again where the answer to the commit was lost.
            if now is not None and now["build"] == document["build"] and now["next_build"] != build:
                rows.add_passages(tx, of_document(document["id"], made))
                rows.update(tx, document["id"], about)

        self.db.transact(work)

    def _swap(self, tx: Transaction, scope: Row) -> None:
        whose = scope["workspace_id"], scope["agent"]
        locked, _ = rows.lock(tx, *whose)
        rows.take_next_builds(tx, *whose)
        rows.update_scope(tx, locked, rows.sums(tx, *whose))
        tx.after_commit(lambda: self.changed(scope["workspace_id"]))

    def _use_model(self, tx: Transaction, scope: Row) -> None:
        locked, _ = rows.lock(tx, scope["workspace_id"], scope["agent"])
        if locked["model"] != self._model:
            rows.update_scope(tx, locked, {"model": self._model})
            tx.after_commit(lambda: self.changed(scope["workspace_id"]))

    def _tidy(self, scope: Row, used: set[str]) -> None:
        """Delete vectors of other models, and of texts that are gone."""
        model, after = self._model, ""
        while self.db.transact(lambda tx: vectors.delete_other_models(tx, scope, model, PAGE)):
            pass
        read = partial(vectors.digests, scope=scope, model=model, limit=PAGE)
        while page := self.db.query(partial(read, after=after)):
            if unused := [one for one in page if one not in used]:
                self.db.transact(partial(vectors.delete, scope=scope, model=model, unused=unused))
            after = page[-1]


def _pages(texts: Iterable[Text]) -> Iterator[list[Text]]:
    left = iter(texts)
    while page := list(islice(left, PAGE)):
        yield page
