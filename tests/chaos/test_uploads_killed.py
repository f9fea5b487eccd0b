"""`kill -9` of the workers while images are uploaded: each is stored whole with its run, or not at all."""

from __future__ import annotations

import os
import random
import threading
import time
from base64 import b64decode
from contextlib import closing
from hashlib import sha256
from typing import Any

import httpx2
import sqlalchemy as sa

from service.store.database import Database, Row
from service.store.schema import files, run_files, runs
from tests.chaos.houses import House
from tests.chaos.test_worker_killed import kill_workers
from tests.web.made_files import block, made

KILLS = int(os.environ.get("CHAOS_UPLOADS", "4"))
AT_ONCE = 4
SECONDS = 0.6  # after which the latest kill comes


def test_uploads_are_whole_or_not_there(house: House) -> None:
    random.seed(int(os.environ.get("SEED", "24")))
    client = house.server.client()
    answered: list[str] = []
    for _ in range(KILLS):
        uploads = [threading.Thread(target=upload, args=(client, answered)) for _ in range(AT_ONCE)]
        for each in uploads:
            each.start()
        time.sleep(random.uniform(0, SECONDS))
        kill_workers(house.server)
        for each in uploads:
            each.join(60)
    upload(client, answered)
    client.close()
    stored = {row["digest"]: row for row in read(house, sa.select(files))}
    for digest, row in stored.items():
        content = b64decode(row["data"])
        assert (sha256(content).hexdigest(), len(content)) == (digest, row["size"])
    of_runs = read(house, sa.select(run_files).join(runs, runs.c.id == run_files.c.run_id))
    assert {row["digest"] for row in of_runs} == stored.keys(), "of runs that are there, and no others"
    assert answered and set(answered) <= stored.keys(), "what was answered is there"


def upload(client: httpx2.Client, answered: list[str]) -> None:
    """Ask about an image; note its digest once its run is told to be over."""
    image = made("image/png", 400_000)
    content = [block("image/png", image), {"type": "text", "text": "What is this?"}]
    try:
        answer = client.post("/v1/messages", json=body(content))
    except httpx2.HTTPError:
        return
    if answer.status_code == 200:
        answered.append(sha256(image).hexdigest())


def body(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": "assistant", "max_tokens": 200, "messages": [{"role": "user", "content": content}]}


def read(house: House, query: sa.Select[Any]) -> list[Row]:
    env = house.server.env
    url = env.get("DATABASE_URL", f"sqlite:///{env['SLIPWAY_HOME']}/slipway.db")
    with closing(Database(url)) as db:
        return db.query(lambda tx: tx.rows(query))
