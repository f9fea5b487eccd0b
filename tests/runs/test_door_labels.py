"""Labels of doors: given with the request, stored with the run, and enough to know its mode again."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import Mode, Run
from service.wiring import Services
from tests.runs import inside

LABELS: list[tuple[Mode, str | None, str]] = [
    ("wait", "messages/invoke", "messages/invoke"),
    ("stream", "messages/stream", "messages/stream"),
    ("stream", "messages", "messages"),
    ("stream", "socket", "socket"),
    ("queue", "a2a/task", "a2a/task"),
    ("queue", "schedule/task", "schedule/task"),
    ("wait", None, "invoke"),
    ("stream", None, "stream"),
    ("queue", None, "task"),
]


def start(wired: Services, mode: Mode, door: str | None) -> Run:
    request, starter = inside.request("Do it.", cache="bypass", door=door), wired.runs.start
    if mode == "wait":
        return starter.invoke(inside.ADA, request, None, "req").run
    if mode == "queue":
        return starter.queue(inside.ADA, request, None, "req").run
    started, events = starter.stream(inside.ADA, request, None, "req")
    for _ in events:
        pass
    return started.run


def stored(wired: Services) -> list[dict[str, Any]]:
    return wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs.c.door, schema.runs.c.request)))


@pytest.mark.parametrize(("mode", "door", "label"), LABELS)
def test_run_has_the_label_of_its_door_and_its_mode_again(
    kept_in_each: Services, mode: Mode, door: str | None, label: str
) -> None:
    run = start(kept_in_each, mode, door)
    known = kept_in_each.runs.queries.get(run.id)
    assert (known.door, known.mode, kept_in_each.runs.queries.result(known)["door"]) == (label, mode, label)
    [row] = stored(kept_in_each)
    assert row["door"] == label and "door" not in row["request"]


@pytest.mark.parametrize(
    ("mode", "door"),
    [("wait", "stream"), ("wait", "messages"), ("stream", "a2a/task"), ("queue", "messages/stream")],
)
def test_label_of_another_mode_starts_no_run(wired: Services, mode: Mode, door: str) -> None:
    with pytest.raises(ValueError, match=door):
        start(wired, mode, door)
    assert stored(wired) == []
