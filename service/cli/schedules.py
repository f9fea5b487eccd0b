"""`flask schedules`."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import click

from service.cli.common import Commands, as_json, limit_option, print_rows, services
from service.schedules.cron import Cron
from service.schedules.schedules import item, missed_item
from service.store import schedules as rows
from service.store.visibility import UNRESTRICTED
from service.types import rfc3339

schedules = Commands("schedules", help="Schedules: agents that are asked at the times of a cron expression.")


@schedules.command("list")
@limit_option
@as_json
def list_schedules(limit: int, as_json: bool) -> None:
    """List schedules of all users, newest first."""
    found = services().infra.db.query(
        lambda tx: rows.recent(tx, limit=limit, before=None, visible=UNRESTRICTED)
    )
    columns = "id user_id agent cron timezone missed enabled next_at stopped"
    print_rows([item(row) for row in found], columns, "There are no schedules.", as_json=as_json)


@schedules.command("next")
@click.argument("schedule_id")
@limit_option
@as_json
def next_slots(schedule_id: str, limit: int, as_json: bool) -> None:
    """List the next slots of a schedule, in its time zone and in UTC."""
    row = services().schedules.get(schedule_id).row
    cron, slot = Cron(row["cron"], row["timezone"]), row["next_at"]
    found: list[dict[str, str | None]] = []
    while slot is not None and len(found) < limit:
        local = datetime.fromtimestamp(slot / 1000, ZoneInfo(cron.zone))
        found.append({"local": local.isoformat(), "utc": rfc3339(slot)})
        slot = cron.following(slot)
    print_rows(found, "local utc", f"{schedule_id} is paused.", as_json=as_json)


@schedules.command()
@click.argument("schedule_id")
@limit_option
@as_json
def missed(schedule_id: str, limit: int, as_json: bool) -> None:
    """List slots of a schedule that made no run, newest first, and why."""
    services().schedules.get(schedule_id)
    found = services().infra.db.query(lambda tx: rows.last_without_run(tx, schedule_id, limit))
    columns = "slot_at until_at outcome code"
    print_rows(
        [missed_item(row) for row in found],
        columns,
        "No slot was missed, skipped or refused.",
        as_json=as_json,
    )


@schedules.command()
@click.argument("schedule_id")
def pause(schedule_id: str) -> None:
    """Pause a schedule: it has no slots until it is resumed."""
    services().schedules.enable(schedule_id, enabled=False)
    click.echo(f"Paused {schedule_id}.")


@schedules.command()
@click.argument("schedule_id")
def resume(schedule_id: str) -> None:
    """Resume a schedule with its next slot from now on, also one that a wrong clock has put far ahead."""
    services().schedules.enable(schedule_id, enabled=True)
    found = services().schedules.get(schedule_id).row
    click.echo(f"Resumed {schedule_id}, next at {rfc3339(found['next_at'])}.")
