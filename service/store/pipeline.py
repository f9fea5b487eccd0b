"""Pipelines of PostgreSQL: several statements in one round trip, with results that the server itself compares.

A result that differs from the expected one fails its statement, and with it the rest of the pipeline, COMMIT included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import psycopg

from service.store.postgres_connection import Answer, Connection

# Evaluates to 1, or fails: SQL has no other expression that raises an error, short of a function in the database.
ONE_OR_FAILS = "1 / ({})::int"


class Unexpected(Exception):
    """Raised when a result was not the expected one; nothing is committed."""


class Queued(NamedTuple):
    """Statement that waits for a round trip; `read` receives its answer."""

    sql: str
    values: Any = None
    read: Callable[[Any], object] | None = None


def expecting_count(sql: str, count: int) -> str:
    """Wrap an INSERT, UPDATE or DELETE that must change `count` rows."""
    return f"WITH done AS ({sql} RETURNING 1) SELECT {ONE_OR_FAILS.format(f'count(*) = {count}')} FROM done"


def expecting_rows(
    sql: str, values: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Wrap a query that must return these rows, in this order."""
    same = "coalesce(jsonb_agg(to_jsonb(found)), '[]') = %(expected_rows)s::jsonb"
    wrapped = f"WITH found AS ({sql}) SELECT {ONE_OR_FAILS.format(same)} FROM found"
    return wrapped, {
        **values,
        "expected_rows": orjson.dumps(list(rows), option=orjson.OPT_NON_STR_KEYS).decode(),
    }


def send(connection: Connection, queue: Sequence[Queued]) -> Answer:
    """Send statements in one round trip; return the last one's answer. Raises `Unexpected` and the driver's errors."""
    try:
        answers = connection.exchange([(each.sql, each.values) for each in queue])
    except psycopg.errors.DivisionByZero as error:
        raise Unexpected from error
    for each, answer in zip(queue, answers, strict=True):
        if each.read is not None:
            each.read(answer)
    return answers[-1]
