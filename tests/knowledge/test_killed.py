"""`kill -9` of a process that adds and indexes documents: each is whole or as before; no search meets a half."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store.schema import knowledge_documents, knowledge_passages
from service.types import DEFAULT_WORKSPACE
from tests.knowledge.conftest import Make
from tests.knowledge.house import AGENT, DeterministicEmbedder, House
from tests.knowledge.writer import NAMES, PARTS, index, text_of

KILLS = int(os.environ.get("KNOWLEDGE_KILLS", "3"))
SECONDS = 1.5  # longest life of a process at its work


@pytest.mark.timeout(1_800)
def test_killed_writers_leave_whole_documents(make: Make, url: str, tmp_path: Path) -> None:
    random.seed(int(os.environ.get("SEED", "24")))
    house, log = make(embedder=DeterministicEmbedder("model0", 64)), tmp_path / "log"
    for name in NAMES:
        house.add(name, text_of(name, 0))
    house.index() if house.indexing.by_meaning else None
    log.write_text("".join(f"told {name} 0\n" for name in NAMES))
    with searching(house) as searches:
        for number in range(1, KILLS + 1):
            kill_one(url, log, number)
            check(house, log)
    assert searches and min(searches) > 0, "the documents of before answer at any moment"
    index(house)
    check(house, log)
    count = sa.select(sa.func.count(), sa.func.count(sa.distinct(knowledge_passages.c.digest)))
    passages, digests = house.db.query(lambda tx: tuple(tx.rows(count)[0].values()))
    assert passages == PARTS * len(NAMES), "nothing is left of builds that were cut off"
    if house.indexing.by_meaning:
        vectors = sa.text("SELECT count(*) AS n FROM knowledge_vectors")
        assert house.db.query(lambda tx: tx.rows(vectors))[0]["n"] == digests
        page = house.documents.page(DEFAULT_WORKSPACE, AGENT, limit=9, after=None)
        assert {row["searched_by"] for row in page} == {"meaning"}


def kill_one(url: str, log: Path, number: int) -> None:
    """Start a writer, and kill it at any moment of its work."""
    size = log.stat().st_size
    writer = subprocess.Popen([sys.executable, "-m", "tests.knowledge.writer", url, str(log), str(number)])
    try:
        while log.stat().st_size == size and writer.poll() is None:
            time.sleep(0.01)
        time.sleep(random.uniform(0, SECONDS))
        assert writer.poll() is None, "it works until it is killed"
    finally:
        writer.kill()
        writer.wait()


def check(house: House, log: Path) -> None:
    """Check that each document is whole, of the last version that was told, or of the one that was begun after it."""
    for row in house.db.query(lambda tx: tx.rows(sa.select(knowledge_documents))):
        lines = [line.split() for line in log.read_text().splitlines()]
        noted = [(what, int(version)) for what, name, version in lines if name == row["name"]]
        last = max(at for at, (what, _) in enumerate(noted) if what == "told")
        possible = {version for _, version in noted[last:]}
        assert row["text"] in {text_of(row["name"], version) for version in possible}, (row["name"], possible)
        of_it = (knowledge_passages.c.document_id == row["id"], knowledge_passages.c.build == row["build"])
        query = sa.select(knowledge_passages.c.text).where(*of_it).order_by(knowledge_passages.c.id)
        cut = [one["text"] for one in house.db.query(lambda tx, query=query: tx.rows(query))]  # type: ignore[misc]
        assert len(cut) == PARTS == row["passages"] and all(one in row["text"] for one in cut)
    (scope,) = [one for one in house.indexing.scopes() if one["workspace_id"]]
    sums = (scope["documents"], scope["passages"])
    assert sums == (len(NAMES), PARTS * len(NAMES))


@contextmanager
def searching(house: House) -> Iterator[list[int]]:
    """Search all the while; yield how many passages each search has found."""
    found: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.1):
            found.append(len(house.knowledge().search("which version is this part of", limit=9)))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
