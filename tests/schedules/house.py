"""Application with schedules, on a clock that the test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from service.auth.users import User
from service.store import schedules as rows
from service.store.schema import runs, schedule_slots, schedules
from service.types import Caller
from service.wiring import Services
from tests.made import app_in

MINUTE = 60_000
NOON = 1_796_040_000_000 - 1_796_040_000_000 % 3_600_000  # a full hour of 2026-11-30
PASSWORD = "a-password-of-some-length"


class House:
    """Ada's schedules. `now`: what the database's clock says, in ms."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
        self.now = NOON
        monkeypatch.setattr(rows, "clock", lambda tx: self.now)
        self.app: Flask = app_in(folder, DATABASE_URL=url, **settings)
        self.services: Services = self.app.extensions["slipway"]
        self.ada: User = self.services.auth.users.create("ada", PASSWORD)
        self.caller = Caller(self.ada.id, "ada", "user")

    def add(self, cron: str = "* * * * *", caller: Caller | None = None, **fields: Any) -> str:
        """A new schedule; its id."""
        given = {"input": "Report.", "cron": cron, "timezone": "UTC", "missed": "skip", "session_id": None}
        given |= {"cap_nano": None, "enabled": True}
        agent = fields.pop("agent", "assistant")
        known = self.services.schedules
        row = known.new(caller or self.caller, agent, given | fields)
        return str(self.services.infra.db.transact(lambda tx: known.insert(tx, row))["id"])

    def dispatch(self, at: int | None = None) -> None:
        self.now = self.now if at is None else at
        self.services.dispatcher.dispatch()

    def schedule(self, schedule_id: str) -> dict[str, Any]:
        [row] = self.rows(schedules, schedules.c.id == schedule_id)
        return row

    def slots(self, schedule_id: str) -> list[tuple[int, int, str, str | None]]:
        """First and last slot in minutes after noon, outcome and code, of each row."""
        found = self.rows(schedule_slots, schedule_slots.c.schedule_id == schedule_id)
        return [
            ((row["slot"] - NOON) // MINUTE, (row["until"] - NOON) // MINUTE, row["outcome"], row["code"])
            for row in sorted(found, key=lambda row: row["slot"])
        ]

    def ran(self, schedule_id: str) -> list[int]:
        """Slots that have a run, in minutes after noon; each run is there, once."""
        made = self.rows(schedule_slots, schedule_slots.c.schedule_id == schedule_id)
        ids = [row["run_id"] for row in made if row["run_id"] is not None]
        assert sorted(ids) == sorted(run["id"] for run in self.runs(schedule_id))
        return [first for first, _, outcome, _ in self.slots(schedule_id) if outcome == "run"]

    def runs(self, schedule_id: str) -> list[dict[str, Any]]:
        return self.rows(runs, runs.c.schedule_id == schedule_id)

    def rows(self, table: sa.Table, *where: Any) -> list[dict[str, Any]]:
        return self.services.infra.db.query(
            lambda tx: [dict(row) for row in tx.rows(sa.select(table).where(*where))]
        )
