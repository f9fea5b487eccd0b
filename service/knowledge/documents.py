"""Documents that admins add for a workspace: added or replaced by name, listed, deleted; within its bounds."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from service.audit.record import Action, record
from service.errors import NotFound, Overloaded, TooMany, fault
from service.guardrails.hosts import hosts_in
from service.ids import new_id
from service.knowledge.extract import Busy, Unreadable
from service.knowledge.formats import Document, read
from service.knowledge.passages import Passage, passages
from service.knowledge.searched_by import by, embedded, searched_by
from service.knowledge.vectors import BATCH, Embedders, NoVectors, Why, digest, embedded_text
from service.knowledge.words import words_of
from service.store import knowledge as rows
from service.store import knowledge_vectors as vectors
from service.store.database import Database, Row, Transaction
from service.types import now_ms, public_fields

RULES = 1  # of cutting and of words; `flask knowledge index` cuts documents of other rules again
MAX_PASSAGES = 2_000  # of a document: some 3 MB of text, which take seconds to be indexed
MAX_CUTTING, WAIT_SECONDS = 2, 30.0  # documents indexed at once in a process, and the longest wait for a turn
MAX_HOSTS = 200  # of a document, to which answers may link
# Passages embedded as they are added; those of a larger document are left to `flask knowledge index`.
AT_ONCE = 64
_cutting = threading.BoundedSemaphore(MAX_CUTTING)
_FIELDS = (
    "id workspace_id agent name title category trusted size passages searched_by reason created_at updated_at"
)


class Limits(NamedTuple):
    """Bounds of a workspace."""

    documents: int
    bytes: int
    passages: int


class NewDocument(NamedTuple):
    """File to add. `kind`: one of `formats.FORMATS`."""

    name: str
    kind: str
    data: bytes
    title: str | None = None
    category: str = ""
    trusted: bool = False


class Prepared(NamedTuple):
    """Document with its passages, ready to be written; `vectors` by digest, for all passages or, by `why`, none.

    One that replaces another takes over its id.
    """

    row: dict[str, Any]
    passages: Sequence[dict[str, Any]]
    vectors: dict[str, array[float]]
    why: Why | None


@dataclass(slots=True)
class Documents:
    """Documents of workspaces. One per process. `changed` is told of a workspace whose documents have changed."""

    db: Database
    limits: Limits
    embedder: Embedders | None
    changed: Callable[[str], object]

    def prepare(self, workspace_id: str, agent: str, new: NewDocument) -> Prepared:
        """Read and cut a file. Raises `Invalid` for one that cannot be read, and `Overloaded`."""
        try:
            document = read(new.data, new.kind, new.name)
        except Unreadable as error:
            raise fault("/data", str(error)) from None
        except Busy:
            raise Overloaded("Too many documents are being read at once.") from None
        if not document.text.strip():
            raise fault("/data", "has no text")
        document = document._replace(title=new.title or document.title)
        now = now_ms()
        row = {
            "id": new_id("doc"),
            "workspace_id": workspace_id,
            "agent": agent,
            "name": new.name,
            "category": new.category,
            "trusted": new.trusted,
            "digest": sha256(new.data).hexdigest(),
            "created_at": now,
            **_text_of(document),
        }
        made = _built_in_turn(row, document, now)
        return Prepared({**row, **built_fields(made, now)}, made, *self._vectors(row, made))

    def write(self, tx: Transaction, new: Prepared) -> dict[str, Any]:
        """Add a prepared document, or replace the one of its name. Raises `TooMany` beyond the workspace's bounds."""
        row = new.row
        scope, others = rows.lock(tx, row["workspace_id"], row["agent"])
        before = rows.named(tx, row["workspace_id"], row["agent"], row["name"])
        if before is not None and before["build"] == row["build"]:  # the answer to an earlier commit was lost
            return self._told(tx, before, new.why)
        self._check_bounds(others, row, before)
        if before is None:
            rows.add(tx, row)
        else:
            row = {**row, "id": before["id"], "created_at": before["created_at"]}
            rows.update(tx, before["id"], row)
            rows.drop_build(tx, before["id"], before["build"])
        rows.add_passages(tx, of_document(row["id"], new.passages))
        model = scope["model"]
        if new.vectors and self.embedder is not None and vectors.available(tx):
            vectors.add(tx, scope, self.embedder.name, new.vectors)
            model = model if scope["passages"] else self.embedder.name
        self._note_change(tx, scope, model)
        told = {"agent": row["agent"], "trusted": row["trusted"], "replaced": before is not None}
        record(tx, Action.DOCUMENT_ADDED, f"document:{row['id']}", workspace_id=row["workspace_id"], **told)
        return self._told(tx, row, new.why)

    def _told(self, tx: Transaction, row: Row, why: Why | None) -> dict[str, Any]:
        whole = embedded(tx, self.embedder, [row])
        return public({**row, **by(None if whole else why or "not_indexed")})

    def get(self, workspace_id: str | None, agent: str, document_id: str) -> Row:
        """Find a document, of a workspace or of any, with its text. Raises `NotFound`."""
        found = self.db.query(lambda tx: _found(tx, workspace_id, agent, document_id))
        return searched_by(self.db, self.embedder, [found])[0]

    def page(self, workspace_id: str | None, agent: str, *, limit: int, after: str | None) -> list[Row]:
        """List documents of a workspace, or of all, oldest first, after the id `after`."""
        found = self.db.query(lambda tx: rows.page(tx, workspace_id, agent, limit=limit, after=after))
        return searched_by(self.db, self.embedder, found)

    def delete(self, workspace_id: str | None, agent: str, document_id: str) -> None:
        """Delete a document, of a workspace or of any; no search finds it any more. Raises `NotFound`."""

        def work(tx: Transaction) -> None:
            whose = _found(tx, workspace_id, agent, document_id)["workspace_id"]
            scope, _ = rows.lock(tx, whose, agent)
            _found(tx, whose, agent, document_id)  # still, behind another deletion
            rows.delete(tx, document_id)
            self._note_change(tx, scope, scope["model"])
            record(tx, Action.DOCUMENT_REMOVED, f"document:{document_id}", workspace_id=whose, agent=agent)

        self.db.transact(work)

    def _note_change(self, tx: Transaction, scope: Row, model: str | None) -> None:
        sums = rows.sums(tx, scope["workspace_id"], scope["agent"])
        rows.update_scope(tx, scope, {**sums, "model": model})
        tx.after_commit(lambda: self.changed(scope["workspace_id"]))

    def _check_bounds(self, scopes: Sequence[Row], row: dict[str, Any], before: Row | None) -> None:
        added = {"documents": 1, "bytes": row["size"], "passages": row["passages"]}
        gone = {"documents": 1, "bytes": before["size"], "passages": before["passages"]} if before else {}
        for name, most in self.limits._asdict().items():
            total = sum(scope[name] for scope in scopes) + added[name] - gone.get(name, 0)
            if total > most:
                raise TooMany(f"The documents of this workspace may have {most} {name}: delete some first.")

    def _vectors(
        self, row: dict[str, Any], made: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, array[float]], Why | None]:
        """Embed the passages of a small document; none, and why, where one of them gets no vector."""
        if self.embedder is None:
            return {}, "no_endpoint"
        if not self.db.query(vectors.available):
            return {}, "no_extension"
        if len(made) > AT_ONCE:
            return {}, "not_indexed"
        embedder = self.embedder.of_workspace(row["workspace_id"], row["agent"])
        found: dict[str, array[float]] = {}
        try:
            for start in range(0, len(made), BATCH):
                some = made[start : start + BATCH]
                got = embedder.embed_all([embedded_text(one["title"], one["text"]) for one in some])
                found |= {one["digest"]: vector for one, vector in zip(some, got, strict=True)}
        except NoVectors as error:  # left to `flask knowledge index`
            return {}, error.why
        return found, None


def _built_in_turn(row: dict[str, Any], document: Document, build: int) -> list[dict[str, Any]]:
    count = sum(1 for _ in passages(document, "", ""))
    if not 0 < count <= MAX_PASSAGES:
        raise fault("/data", f"makes {count} passages; 1 to {MAX_PASSAGES} are possible: split it")
    if not _cutting.acquire(timeout=WAIT_SECONDS):
        raise Overloaded("Too many documents are being indexed at once.")
    try:
        return built(row, document, build)
    finally:
        _cutting.release()


def built(row: dict[str, Any] | Row, document: Document, build: int) -> list[dict[str, Any]]:
    """Cut a document: return its passages, as one build; `of_document` makes rows of them."""
    whose = {"workspace_id": row["workspace_id"], "agent": row["agent"], "build": build}
    return [{**whose, **_columns(one)} for one in passages(document, "", row["category"])]


def of_document(document_id: str, made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of passages, with the document that they are of."""
    return [{**one, "document_id": document_id, "uri": f"document:{document_id}{one['uri']}"} for one in made]


def built_fields(made: Sequence[dict[str, Any]], build: int) -> dict[str, Any]:
    """Return the columns of a document that its passages make."""
    tokens = sum(one["words"].count(" ") + 1 for one in made)
    about = {"passages": len(made), "tokens": tokens, "rules": RULES}
    return {**about, "build": build, "next_build": None, "updated_at": build}


def public(row: Row) -> dict[str, Any]:
    """Return the API's document object, without its text."""
    return public_fields(row, _FIELDS)


def _columns(one: Passage) -> dict[str, Any]:
    about = {"title": one.title, "uri": one.uri, "category": one.category, "text": one.text}
    words = words_of(f"{one.title}\n{one.text}")
    return {**about, "words": words, "digest": digest(one.title, one.text)}


def _text_of(document: Document) -> dict[str, Any]:
    text = document.text
    about = {"title": document.title, "kind": document.kind, "text": text}
    return {**about, "size": len(text.encode()), "hosts": sorted(hosts_in(text))[:MAX_HOSTS]}


def _found(tx: Transaction, workspace_id: str | None, agent: str, document_id: str) -> Row:
    row = rows.get(tx, workspace_id, agent, document_id)
    if row is None:
        raise NotFound(f"There is no document {document_id}.")
    return row
