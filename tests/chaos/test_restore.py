"""Backup made under load, restored into an empty home with the commands of docs/backup.md, and compared."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from tests.conftest import PYTHON, ROOT, Model, Slipway, redis_in, slipway_server, wait_until

GUIDE = (ROOT / "docs" / "backup.md").read_text()
ASKING = 4  # clients that ask all the while
INVOKE = "/v1/agents/assistant/invoke"
ADA = {"username": "ada", "password": "ada-password-1"}
COMMON = {"SECRET_KEY": "the-same-before-and-after-the-restore", "LIMIT_RUNS": "100000/minute"}
BOOKS = (
    "SELECT entry_id, kind, account, amount_nano, at, model, input_tokens, output_tokens FROM ledger "
    "WHERE run_id IN :ids ORDER BY entry_id, kind, account"
)
Settings = dict[str, str]


@dataclass
class Kept:
    """Collect the clients' data, equal before the backup and after the restore."""

    key: str  # an API key
    token: str  # of a log-in
    runs: dict[str, Any]
    session: dict[str, Any]
    caps: list[dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def homes(kind: str, request: pytest.FixtureRequest, scratch: Path) -> list[Settings]:
    """Settings of the original and of the restored service, each with its own home and database."""
    made: list[Settings] = []
    for age in ("old", "new"):
        made.append({"SLIPWAY_HOME": str(scratch / f"restore-{kind}-{age}"), **COMMON})
        if kind == "postgresql":
            postgres = request.getfixturevalue("postgres")
            made[-1] |= {"DATABASE_URL": postgres.create(f"restore_{age}"), "PATH": postgres.path}
    return made


@contextmanager
def service(settings: Settings, model: Model, *, migrated: bool = True) -> Iterator[Slipway]:
    """Start a service with these settings and an empty Redis."""
    home = Path(settings["SLIPWAY_HOME"])
    more = {name: value for name, value in settings.items() if name != "SLIPWAY_HOME"}
    with (
        redis_in(home.with_name(f"{home.name}-redis")) as redis,
        slipway_server(home, redis.url, model.url, migrated=migrated, **more) as server,
    ):
        yield server


@contextmanager
def load_on(server: Slipway) -> Iterator[list[str]]:
    """Clients that ask one question after another; the ids of the runs that have ended well."""
    stop, ended = threading.Event(), list[str]()

    def ask(number: int) -> None:
        asked = 0
        with closing(server.client()) as client:
            while not stop.is_set():
                asked += 1
                question = {"input": f"Client {number} asks {asked}", "cache": "bypass"}
                answer = client.post(INVOKE, json=question)
                if answer.status_code == 200:
                    ended.append(answer.json()["run_id"])

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def follow_the_guide(containing: str, settings: Settings, folder: Path = ROOT) -> None:
    """Run the one block of shell commands of the guide that holds these words."""
    blocks = re.findall(r"(?ms)^ *```sh\n(.*?)^ *```", GUIDE)
    (script,) = [block for block in blocks if containing in block and "docker compose" not in block]
    env = {**os.environ, "APP_ENV": "testing", **settings}
    env["PATH"] = f"{Path(PYTHON).parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script.replace(".venv/bin/", f"{Path(PYTHON).parent}/")],
        check=False,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def rows_of(settings: Settings, query: str, *ids: str) -> list[tuple[Any, ...]]:
    url = settings.get("DATABASE_URL", f"sqlite:///{settings['SLIPWAY_HOME']}/slipway.db")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    statement = sa.text(query)
    if ids:
        statement = statement.bindparams(sa.bindparam("ids", list(ids), expanding=True))
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(statement)]
    engine.dispose()
    return found


def things_to_keep(client: httpx2.Client) -> tuple[str, str]:
    """Make a user, a cap, an API key and a session with two turns. The key and the session's id."""
    assert client.post("/v1/admin/users", json={**ADA, "role": "user"}).status_code == 201
    cap = {"amount_usd": "70.000000", "period": "day"}
    assert client.put("/v1/admin/budgets/agent:assistant", json=cap).status_code == 200
    key = client.post("/v1/auth/keys", json={"name": "kept"}).json()["key"]
    session = client.post("/v1/sessions", json={"agent": "assistant", "title": "Kept"}).json()["id"]
    for turn in ("One", "Two"):
        assert client.post(INVOKE, json={"input": turn, "session_id": session}).status_code == 200
    return key, session


def caps_of(client: httpx2.Client) -> list[dict[str, Any]]:
    """Drop spent amounts, which keep growing."""
    caps = client.get("/v1/admin/budgets").json()["data"]
    return [{name: cap[name] for name in ("id", "period", "amount_usd", "default")} for cap in caps]


def lived(old: Settings, model: Model, back_up: str, folder: Path) -> Kept:
    """Let the old service work, back it up in the middle of it, and end it some answers later."""
    with service(old, model) as server, closing(server.client()) as client:
        key, session = things_to_keep(client)
        talk, caps = client.get(f"/v1/sessions/{session}").json(), caps_of(client)
        with load_on(server) as ended:
            wait_until(lambda: len(ended) >= 30, "some answers")
            before = list(ended)
            follow_the_guide(back_up, old, folder)
            after = len(ended)
            wait_until(lambda: len(ended) >= after + 20, "answers after the backup")
        runs = {run_id: client.get(f"/v1/runs/{run_id}").json() for run_id in before}
        return Kept(key, client.headers["Authorization"], runs, talk, caps)


def test_backup_made_under_load_is_restored(
    homes: list[Settings], kind: str, model: Model, tmp_path: Path
) -> None:
    old, new = homes
    back_up, put_back = {
        "sqlite": ("VACUUM INTO", "cp slipway-backup.db"),
        "postgresql": ("pg_dump", "pg_restore"),
    }[kind]
    model.reset()
    model.control(first_token_ms=20)
    kept = lived(old, model, back_up, tmp_path)
    books = rows_of(old, BOOKS, *kept.runs)
    assert len(books) >= 5 * len(kept.runs), "a hold and its settlement for each run"

    follow_the_guide(put_back, new, tmp_path)
    follow_the_guide("flask ledger check", new)
    follow_the_guide("flask runs list", new)
    assert rows_of(new, BOOKS, *kept.runs) == books
    with service(new, model, migrated=False) as server:
        assert_all_is_there(server, kept)
        unfinished = "SELECT count(*) FROM runs WHERE finished_at IS NULL"
        wait_until(lambda: rows_of(new, unfinished) == [(0,)], "the end of what was under way")
        assert rows_of(new, "SELECT count(*) FROM holds") == [(0,)]
    follow_the_guide("flask ledger check", new)


def assert_all_is_there(server: Slipway, kept: Kept) -> None:
    server.client(**ADA).close()
    for authorization in (kept.token, f"Bearer {kept.key}"):
        with closing(server.visitor()) as client:
            client.headers["Authorization"] = authorization
            assert client.get("/v1/auth/me").json()["username"] == "demo"
            assert {run_id: client.get(f"/v1/runs/{run_id}").json() for run_id in kept.runs} == kept.runs
    with closing(server.client()) as client:
        session = kept.session["id"]
        assert client.get(f"/v1/sessions/{session}").json() == kept.session
        assert caps_of(client) == kept.caps
        assert client.post(INVOKE, json={"input": "Three", "session_id": session}).status_code == 200
