"""Canaries: words that a user writes into every field there is, and a byte search for them in all that keeps state."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from service.store.schema import gateway_calls, metadata
from service.text.packed import unpacked

MARK = "cnry"


class Canaries:
    """Words of one person. `word` makes one more."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def word(self) -> str:
        self.words.append(f"{MARK}{secrets.token_hex(8)}")
        return self.words[-1]

    def found(self, places: Iterable[tuple[str, bytes]]) -> dict[str, set[str]]:
        """Find the words of this person, by the name of the place that they are in."""
        wanted = {word.encode() for word in self.words}
        found: dict[str, set[str]] = {}
        for name, content in places:
            for part in content.split(MARK.encode())[1:]:
                word = MARK.encode() + part[:16]
                if word in wanted:
                    found.setdefault(name, set()).add(word.decode())
        return found


def in_redis(url: str) -> Iterator[tuple[str, bytes]]:
    """Yield every key with its value, as Redis would save it."""
    client = redis.Redis.from_url(url)
    client.config_set("rdbcompression", "no")
    for key in client.scan_iter(count=1000):
        yield f"redis {key.decode()}", key + (client.dump(key) or b"")
    client.close()


def in_rows(engine: sa.Engine) -> Iterator[tuple[str, bytes]]:
    """Yield every row, as a dump has it."""
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                yield f"rows of {table.name}", repr(tuple(row)).encode()
                if table is gateway_calls and row.answer is not None:
                    with suppress(ValueError, zlib.error):  # it is sealed
                        yield f"rows of {table.name}", unpacked(row.answer)


def in_files(folder: Path, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            yield path.name, path.read_bytes()


def in_relations(engine: sa.Engine) -> Iterator[tuple[str, bytes]]:
    """Yield the files of every table and index of a PostgreSQL database of this machine, with its TOAST."""
    # Of its own: the service's connections have a time-out, which a CHECKPOINT on a busy machine passes.
    auto = sa.create_engine(engine.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with auto.connect() as connection:
        connection.execute(sa.text("CHECKPOINT"))
        folder = Path(connection.execute(sa.text("SHOW data_directory")).scalar_one())
        query = "SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't')"
        rows: list[Any] = list(connection.execute(sa.text(query)))
    for name, path in rows:
        if path and (folder / path).exists():
            yield f"file of {name}", (folder / path).read_bytes()
