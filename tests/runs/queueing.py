"""Queued tasks by the thousand, written as rows, and the order in which workers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.ids import new_id
from service.store import users
from service.store.database import Database
from service.store.run_values import inserted_values
from service.store.schema import runs
from service.types import DEFAULT_WORKSPACE, Run, RunRequest, RunStatus
from service.wiring import Services

ACME = "wsp_" + "a" * 26


def add_users(db: Database, names: Sequence[str], workspace: str = DEFAULT_WORKSPACE) -> None:
    rows = [
        {
            "id": f"usr_{name}",
            "username": name,
            "password_hash": "",
            "role": "user",
            "workspace_id": workspace,
        }
        for name in names
    ]
    db.transact(lambda tx: [users.insert(tx, {**row, "created_at": 0}) for row in rows])


def a_task(user: str, workspace: str = DEFAULT_WORKSPACE, agent: str = "probe", **asked: Any) -> Run:
    request = RunRequest(agent, ({"role": "user", "content": "Do it."},), **asked)
    about = {"workspace_id": workspace, "status": RunStatus.QUEUED, "attempt": 0}
    return Run(new_id("run"), f"usr_{user}", agent, "1", "task", request, **about)


def queue(db: Database, user: str, count: int = 1, **about: Any) -> list[str]:
    """Queue tasks of a user, by one statement; return their ids."""
    tasks = [a_task(user, **about) for _ in range(count)]
    values = [{**inserted_values(task), "wake_at": task.created_at} for task in tasks]
    with db.begin() as tx:
        tx.execute(sa.insert(runs), [tx.sealed(runs, each, f"usr_{user}") for each in values])
    return [task.id for task in tasks]


def taken(wired: Services, count: int) -> list[str]:
    """Take so many tasks; return whose they are, in order."""
    found = (wired.runs.execution.waiting.next_task() for _ in range(count))
    return [run.user_id.removeprefix("usr_") if run else "" for run in found]
