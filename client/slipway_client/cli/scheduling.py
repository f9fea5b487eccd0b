"""`slipway schedules`: list, add, pause and resume runs by cron."""

from __future__ import annotations

import argparse

from slipway_client.account_models import Schedule
from slipway_client.calls import present
from slipway_client.cli.console import as_json, line, shown, table
from slipway_client.client import Slipway
from slipway_client.errors import NotFoundError, SlipwayError

ABSENT = "This server has no schedules: it is of an older version."


def list_schedules(client: Slipway, options: argparse.Namespace) -> int:
    try:
        found = list(client.schedules.list())
    except NotFoundError:
        raise SlipwayError(ABSENT) from None
    if options.json:
        as_json(found)
        return 0
    rows = [(each.id, each.agent, each.cron, each.timezone, each.next_at, each.enabled) for each in found]
    table(rows, "ID", "AGENT", "CRON", "ZONE", "NEXT", "ENABLED", empty="No schedules.")
    return 0


def add_schedule(client: Slipway, options: argparse.Namespace) -> int:
    given = present(timezone=options.timezone, missed=options.missed, cap_usd=options.cap_usd)
    try:
        added = client.schedules.create(options.agent, " ".join(options.question), options.cron, **given)
    except NotFoundError:
        raise SlipwayError(ABSENT) from None
    return told(added, options.json)


def pause_schedule(client: Slipway, options: argparse.Namespace) -> int:
    return told(client.schedules.update(options.id, enabled=False), options.json)


def resume_schedule(client: Slipway, options: argparse.Namespace) -> int:
    return told(client.schedules.update(options.id, enabled=True), options.json)


def told(schedule: Schedule, json: bool) -> int:
    if json:
        as_json(schedule)
    else:
        line(
            f"{schedule.id}: next {shown(schedule.next_at)}" if schedule.enabled else f"{schedule.id}: paused"
        )
    return 0
