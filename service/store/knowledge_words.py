"""Passages of a workspace's documents by words: SQLite's FTS5 in the database's file, PostgreSQL's `tsvector`.

Both hold the same stems, made by `service.knowledge.words`, and give candidates only; they are ranked there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.text.search_words import Term, in_fts5

MOST_COUNTED = 5_000  # passages: a term that more of them have is common
MOST_READ = 20_000  # passages with common terms only that are compared
_FROM = "knowledge_passages p JOIN knowledge_documents d ON d.id = p.document_id AND d.build = p.build"
_OF_SCOPE = "p.workspace_id = :workspace_id AND p.agent = :agent"
_COLUMNS = "p.id, p.title, p.uri, p.category, p.text, d.trusted"
_OF_CATEGORY = "(:any_category OR p.category = :category)"


def having(tx: Transaction, scope: Row, terms: Sequence[Term]) -> list[int]:
    """Count the passages that have each term, up to `MOST_COUNTED`."""
    values = {**_scope(scope), "most": MOST_COUNTED}
    return [
        int(tx.rows(sa.text(_count(tx)), {**values, "match": _match(tx, [term])})[0]["n"]) for term in terms
    ]


def candidates(
    tx: Transaction,
    scope: Row,
    terms: Sequence[Term],
    counts: Sequence[int],
    category: str | None,
    limit: int,
) -> list[Row]:
    """List passages that have some of the terms, those with rare ones first. `counts`: of `having`."""
    values = {**_scope(scope), "any_category": category is None, "category": category or "", "most": limit}
    if tx.one_writer:
        sql = (
            f"SELECT {_COLUMNS} FROM knowledge_words w JOIN {_FROM} WHERE p.id = w.rowid"
            f" AND knowledge_words MATCH :match AND {_OF_SCOPE} AND {_OF_CATEGORY}"
            " ORDER BY bm25(knowledge_words), p.id LIMIT :most"
        )
        return tx.rows(sa.text(sql), {**values, "match": _match(tx, terms)})
    rare = [term for term, count in zip(terms, counts, strict=True) if 0 < count < MOST_COUNTED]
    values |= {"match": _match(tx, rare or terms), "read": MOST_READ}
    weights = {f"weight{n}": _weight(scope["passages"], count) for n, count in enumerate(counts)}
    matches = {f"match{n}": _match(tx, [term]) for n, term in enumerate(terms)}
    score = " + ".join(
        f"CASE WHEN lexemes @@ CAST(:match{n} AS tsquery) THEN CAST(:weight{n} AS float8) ELSE 0 END"
        for n in range(len(terms))
    )
    sql = (
        f"SELECT id, title, uri, category, text, trusted FROM (SELECT {_COLUMNS}, p.lexemes FROM {_FROM}"
        f" WHERE p.lexemes @@ CAST(:match AS tsquery) AND {_OF_SCOPE} AND {_OF_CATEGORY} LIMIT :read) found"
        f" ORDER BY {score} DESC, length(text), id LIMIT :most"
    )
    return tx.rows(sa.text(sql), {**values, **weights, **matches})


def _scope(scope: Row) -> dict[str, Any]:
    return {"workspace_id": scope["workspace_id"], "agent": scope["agent"]}


def _weight(total: int, count: int) -> float:
    return max(1e-3, math.log((total - count + 0.5) / (count + 0.5))) if total >= count else 1e-3


def _count(tx: Transaction) -> str:
    if tx.one_writer:
        found = f"knowledge_words w JOIN {_FROM} WHERE p.id = w.rowid AND knowledge_words MATCH :match"
    else:
        found = f"{_FROM} WHERE p.lexemes @@ CAST(:match AS tsquery)"
    return f"SELECT count(*) AS n FROM (SELECT 1 FROM {found} AND {_OF_SCOPE} LIMIT :most) counted"


def _match(tx: Transaction, terms: Sequence[Term]) -> str:
    """Return a query for any of the terms. Tokens are letters and digits only, so nothing has to be escaped.

    PostgreSQL's finds the tokens of a phrase anywhere: the ranking looks for them in a row.
    """
    if tx.one_writer:
        return in_fts5(terms)
    return " | ".join("(" + " & ".join(f"'{token}'" for token in term) + ")" for term in terms)
