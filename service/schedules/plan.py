"""Plan for the due slots of a schedule: which one runs now, which are skipped, and which one is next.

A slot is on time for `ON_TIME_MS`, as long as the sweep, a restart or the loss of a worker takes, and missed after
that. Policies for missed slots: `skip` makes no run of them, `once` makes one of all, `all` makes one of each, of the
last `MOST_MISSED`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from service.schedules.cron import Cron

Missed = Literal["skip", "once", "all"]
ON_TIME_MS = 60_000  # less than two slots lie within it
MOST_MISSED = 100


class Plan(NamedTuple):
    """Plan for due slots. `skipped`: the first and the last of them; `slot`: to run; `next_at`: may be due too."""

    skipped: tuple[int, int] | None
    slot: int | None
    next_at: int


def plan(cron: Cron, missed: Missed, first: int, now: int) -> Plan:
    """Plan for the slots from `first`, which is due, to `now`."""
    most = MOST_MISSED if missed == "all" else 1
    due = cron.recent(first, now, most + 1) or [first]  # of rules that a newer time zone database has not
    left_out, runs = due[:-most], due[-most:]
    if missed == "skip" and now - runs[0] >= ON_TIME_MS:
        left_out, runs = due, []
    skipped = (first, left_out[-1]) if left_out else None
    following = runs[1] if len(runs) > 1 else cron.following(due[-1])
    return Plan(skipped, runs[0] if runs else None, following)
