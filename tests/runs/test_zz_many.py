"""10,000 waiting runs: a look without room, and one that finds room for 7."""

import sys, time, json, tempfile
from pathlib import Path
import pytest
import sqlalchemy as sa
from service.store import schema
from service.types import NANO, RunStatus
from service.runs import budget_waits
from tests.runs.test_budget_waits import cap, queue, waiting, status, look


@pytest.mark.timeout(900)
def test_many(kept_in_each, upstream):
    wired = kept_in_each
    cap(wired, 1)
    run = waiting(wired)
    db = wired.infra.db
    row = db.query(lambda tx: tx.rows(sa.select(schema.runs)))[0]
    note = db.query(lambda tx: tx.rows(sa.select(schema.steps)))[-1]
    n = 10_000

    def fill(tx, lo, hi):
        for i in range(lo, hi):
            rid = f"run_{i:026d}"
            tx.execute(sa.insert(schema.runs), tx.sealed(schema.runs, {**row, "id": rid}, row["user_id"]))
            tx.execute(
                sa.insert(schema.steps), tx.sealed(schema.steps, {**note, "run_id": rid}, row["user_id"])
            )

    for lo in range(0, n, 1000):
        db.transact(lambda tx: fill(tx, lo, lo + 1000))
    times = []
    for _ in range(60):
        began = time.perf_counter()
        wired.runs.waits.look()
        times.append(time.perf_counter() - began)
    times.sort()
    print(f"\nlook without room: median {times[30] * 1000:.1f} ms, worst {times[-1] * 1000:.1f} ms")
    needed = note["reply"]["needed"]
    cap(wired, 7 * needed + needed // 2)
    for _ in range(60):
        wired.runs.waits.look()
    q = db.query(
        lambda tx: tx.rows(
            sa.select(sa.func.count().label("n")).where(schema.runs.c.status == RunStatus.QUEUED)
        )
    )[0]["n"]
    print("queued with room for 7:", q)
    wired.runs.waits._given.clear()
    cap(wired, None)
    began = time.perf_counter()
    looks = 0
    while True:
        wired.runs.waits.look()
        looks += 1
        left = db.query(
            lambda tx: tx.rows(
                sa.select(sa.func.count().label("n")).where(schema.runs.c.status == RunStatus.WAITING_BUDGET)
            )
        )[0]["n"]
        if not left:
            break
    print(f"all woken in {looks} looks, {time.perf_counter() - began:.1f} s")
