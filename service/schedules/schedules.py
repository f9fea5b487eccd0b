"""Schedules of users: creation, change, deletion. Their runs are made by `service.schedules.dispatch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.agents.catalog import AgentCatalog
from service.audit.record import Action, record
from service.auth.permissions import check_models
from service.errors import Forbidden, NotFound, fault
from service.ids import new_id
from service.schedules.cron import Cron
from service.sessions import Sessions
from service.store import schedules as rows
from service.store.database import Database, Row, Transaction
from service.store.visibility import ACTIONS, AGENTS, UNRESTRICTED, Visibility, allows, visible_to
from service.types import Caller, now_ms, public_fields, rfc3339, usd

_FIELDS = "id user_id agent cron timezone missed session_id enabled next_at stopped created_at updated_at"
_TIMING = frozenset({"cron", "timezone", "enabled"})


class Detail(NamedTuple):
    """Schedule with its last runs, and the last slots that made none."""

    row: Row
    runs: list[Row]
    without_run: list[Row]


@dataclass(frozen=True, slots=True)
class Schedules:
    """Schedules. One per process. A schedule acts with the rights of the log-in or key that changed it last."""

    db: Database
    catalog: AgentCatalog
    sessions: Sessions

    def new(self, caller: Caller, agent: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Build a `schedules` row without its `next_at`. Raises as `check`, and `Invalid`."""
        now = now_ms()
        whose = {"workspace_id": caller.workspace_id, "user_id": caller.user_id, "key_id": caller.key_id}
        times = {"next_at": None, "stopped": None, "created_at": now, "updated_at": now}
        row = {"id": new_id("sch"), **whose, "agent": agent, **fields, **times}
        self._check(caller, row)
        return row

    def insert(self, tx: Transaction, row: dict[str, Any]) -> Row:
        """Insert a row of `new`, with its first slot. Raises `TooMany`."""
        row = {**row, "next_at": _next_at(row, rows.clock(tx))}
        rows.insert(tx, row)
        tell(tx, Action.SCHEDULE_CREATED, row, agent=row["agent"])
        return row

    def page(self, caller: Caller, *, limit: int, before: str | None) -> list[Row]:
        """List schedules that the caller may see, without their inputs, newest first."""
        visible = visible_to(caller)
        return self.db.query(lambda tx: rows.recent(tx, limit=limit, before=before, visible=visible))

    def get(self, schedule_id: str, caller: Caller | None = None, *, own: bool = False) -> Detail:
        """Find a schedule; without a caller any one, with `own` only the caller's. Raises `NotFound`."""
        visible = UNRESTRICTED if caller is None else visible_to(caller, own=own)

        def read(tx: Transaction) -> Detail:
            row = _found(tx, schedule_id, visible)
            return Detail(row, rows.last_runs(tx, schedule_id), rows.last_without_run(tx, schedule_id))

        return self.db.query(read)

    def change(self, caller: Caller, schedule_id: str, changes: Mapping[str, Any]) -> None:
        """Change fields; the schedule has the caller's rights from then on. Raises `NotFound` and as `new`."""
        visible = visible_to(caller, own=True)
        before = self.db.query(lambda tx: _found(tx, schedule_id, visible))
        self._check(caller, {**before, **changes})
        self._change(schedule_id, visible, {**changes, "key_id": caller.key_id, "updated_at": now_ms()})

    def enable(self, schedule_id: str, *, enabled: bool) -> None:
        """Pause or resume any schedule, for the command line. Raises `NotFound`."""
        self._change(schedule_id, UNRESTRICTED, {"enabled": enabled, "updated_at": now_ms()})

    def _change(self, schedule_id: str, visible: Visibility, changes: dict[str, Any]) -> None:
        def work(tx: Transaction) -> None:
            row, now = _found(tx, schedule_id, visible, lock=True), rows.clock(tx)
            changed = {**row, **changes}
            more: dict[str, Any] = {}
            if _TIMING & changes.keys():
                _leave_out_due(tx, row, now)
                more = {"next_at": _next_at(changed, now), "stopped": None}
            rows.update(tx, row, {**changes, **more})
            told = sorted(changes.keys() - {"key_id", "updated_at"})
            tell(tx, Action.SCHEDULE_CHANGED, row, fields=told, enabled=changed["enabled"])

        self.db.transact(work)

    def delete(self, caller: Caller, schedule_id: str) -> None:
        """Delete a schedule; its runs go on and stay. Raises `NotFound`."""

        def work(tx: Transaction) -> None:
            row = _found(tx, schedule_id, visible_to(caller, own=True), lock=True)
            rows.delete(tx, schedule_id)
            tell(tx, Action.SCHEDULE_DELETED, row)

        self.db.transact(work)

    def _check(self, caller: Caller, row: Mapping[str, Any]) -> None:
        """Check a schedule and its caller's rights. Raises `Invalid`, `Forbidden`, and `NotFound` for the session."""
        try:
            check_rights(self.catalog, caller, row["agent"])
        except NotFound as error:
            raise fault("/agent", error.detail, error.detail) from None
        Cron.checked(row["cron"], row["timezone"])
        if row["session_id"] is None:
            return
        session = self.sessions.get(caller, row["session_id"], own=True)
        if session["agent"] != row["agent"]:
            detail = f"This session belongs to the agent {session['agent']}."
            raise fault("/session_id", detail, detail)


def check_rights(catalog: AgentCatalog, caller: Caller, agent: str) -> None:
    """Check that a caller may start runs of an agent. Raises `NotFound` for the agent, and `Forbidden`."""
    found = catalog.agents.get(agent)
    if found is None or not allows(caller.scopes, AGENTS + agent):
        raise NotFound(f"There is no agent named {agent}.")
    if not allows(caller.scopes, f"{ACTIONS}runs:write"):
        raise Forbidden("The scopes of this API key do not allow runs:write, which a schedule needs.")
    check_models(caller, agent, found.models)


def item(row: Row) -> dict[str, Any]:
    """Return the list form of a schedule, without its input."""
    cap = row["cap_nano"]
    return public_fields(row, _FIELDS) | {"cap_usd": None if cap is None else usd(cap)}


def public(row: Row) -> dict[str, Any]:
    """Return the API's schedule object."""
    return item(row) | {"input": row["input"]}


def detailed(detail: Detail) -> dict[str, Any]:
    """Return the API's schedule object with the last outcomes of its slots."""
    last_runs = [
        {"slot_at": rfc3339(run["slot"]), "run_id": run["run_id"], "status": run["status"]}
        for run in detail.runs
    ]
    return public(detail.row) | {
        "last_runs": last_runs,
        "last_missed": list(map(missed_item, detail.without_run)),
    }


def missed_item(slot: Row) -> dict[str, Any]:
    """Return the API's object of a slot, or of several, that made no run."""
    shown = {"slot_at": rfc3339(slot["slot"]), "until_at": rfc3339(slot["until"])}
    return shown | public_fields(slot, "outcome code")


def outcome(schedule: Row, slot: int, until: int, name: str, at: int, **more: str | None) -> dict[str, Any]:
    """Build a `schedule_slots` row."""
    row = {"schedule_id": schedule["id"], "slot": slot, "until": until, "outcome": name, "at": at}
    return {**row, "code": None, "run_id": None, **more}


def tell(tx: Transaction, action: Action, row: Mapping[str, Any], **details: Any) -> None:
    """Record an action on a schedule, in the workspace of its owner."""
    record(tx, action, f"schedule:{row['id']}", workspace_id=row["workspace_id"], **details)


def _leave_out_due(tx: Transaction, row: Row, now: int) -> None:
    """Tell that the slots which are due are skipped, as their schedule is changed before they could run."""
    if row["next_at"] is not None and row["next_at"] <= now:
        last = Cron(row["cron"], row["timezone"]).recent(row["next_at"], now, 1) or [row["next_at"]]
        rows.decide(tx, outcome(row, row["next_at"], last[0], "skipped", now, code="changed"))


def _next_at(row: Mapping[str, Any], now: int) -> int | None:
    return Cron(row["cron"], row["timezone"]).following(now) if row["enabled"] else None


def _found(tx: Transaction, schedule_id: str, visible: Visibility, *, lock: bool = False) -> Row:
    row = rows.get(tx, schedule_id, visible, lock=lock)
    if row is None:
        raise NotFound(f"There is no schedule {schedule_id}.")
    return row
