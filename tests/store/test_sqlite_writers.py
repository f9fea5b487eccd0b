"""Writers to one SQLite file, in real processes: each gets its turn, and nobody waits for one that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store.database import Database
from service.store.sqlite_writers import Writers
from tests.conftest import process, wait_until

MANY = 200  # threads
ONE_MORE = sa.text("INSERT INTO counts VALUES (1)")
# Writes all the time, from four threads, until it is ended.
GREEDY = """
import sys, threading, time
from pathlib import Path
from service.store.sqlite_writers import Writers
writers = Writers(Path(sys.argv[1]), 5.0)
def write():
    while True:
        with writers.turn():
            time.sleep(0.002)
threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads: thread.start()
print("writing", flush=True)
"""
# Takes the turn, and says so.
HOLDER = """
import sys, time
from pathlib import Path
from service.store.sqlite_writers import Writers
with Writers(Path(sys.argv[1]), 5.0).turn():
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(started: ExitStack, source: str, database: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", source, str(database)]
    child = started.enter_context(process(command, stdout=subprocess.PIPE))
    assert child.stdout is not None
    with child.stdout as said:
        assert said.readline() == b"writing\n"
    return child


def test_one_that_writes_all_the_time_leaves_the_others_their_turns(
    started: ExitStack, database: Path
) -> None:
    begin(started, GREEDY, database)
    writers = Writers(database, 2.0)
    for _ in range(50):
        with writers.turn():
            pass


def test_killed_writer_blocks_no_other(started: ExitStack, database: Path) -> None:
    holder = begin(started, HOLDER, database)
    writers = Writers(database, 0.1)
    with pytest.raises(DatabaseUnavailable), writers.turn():
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(60)
    with writers.turn():
        pass


def test_a_turn_that_failed_is_given_back(database: Path) -> None:
    mine, other = Writers(database, 1.0), Writers(database, 0.1)
    with pytest.raises(ZeroDivisionError), mine.turn():
        raise ZeroDivisionError
    with other.turn():
        pass


def test_threads_write_in_the_order_they_came_but_for_one_that_may_not_wait(database: Path) -> None:
    wrote = list[str]()

    def waiting() -> int:
        assert db._writers is not None
        return len(db._writers._queue)

    with closing(Database(f"sqlite:///{database}")) as db, ThreadPoolExecutor(5) as pool, db.begin():
        for number, name in enumerate(["1", "2", "3", "lease"], 1):
            pool.submit(db.transact, lambda tx, name=name: wrote.append(name), priority=name == "lease")
            wait_until(lambda: waiting() == number, "a thread that waits")  # noqa: B023
    assert wrote == ["lease", "1", "2", "3"]


def write(db: Database) -> int:
    """Write once, without another try."""
    with db.begin() as tx:
        return tx.execute(ONE_MORE)


def test_many_threads_write_and_none_fails(database: Path) -> None:
    """Hundreds of calls at once each write a few times: they wait for their turns."""
    with closing(Database(f"sqlite:///{database}")) as db, ThreadPoolExecutor(MANY) as pool:
        db.transact(lambda tx: tx.execute(sa.text("CREATE TABLE counts (n INTEGER)")))
        writes = [pool.submit(write, db) for _ in range(3 * MANY)]
        assert [each.result() for each in writes] == [1] * 3 * MANY
        assert db.query(lambda tx: tx.row(sa.text("SELECT count(*) AS n FROM counts"))) == {"n": 3 * MANY}


def test_one_that_gave_up_waiting_is_not_given_the_turn(database: Path) -> None:
    mine, other = Writers(database, 0.2), Writers(database, 5.0)
    with mine.turn(), pytest.raises(DatabaseUnavailable), mine.turn():
        pass
    assert not mine._queue
    with other.turn():
        pass


def test_closed_is_not_ended(database: Path) -> None:
    """As a database that is closed connects again where somebody still uses it."""
    mine, other = Writers(database, 1.0), Writers(database, 0.1)
    with mine.turn():
        mine.close()
        with other.turn():
            pass
    with mine.turn(), pytest.raises(DatabaseUnavailable), other.turn():
        pass
