"""Values that are read when /metrics is, and the whole text as Prometheus' own linter sees it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

from service.errors import DatabaseUnavailable
from service.observe import probes
from service.observe.metric_table import ALL
from service.observe.stored_values import StoredValues, Values
from tests.made import app_in, close

PROMTOOL = shutil.which("promtool")
HELD: Values = {"holds": [((), 2)], "processes": [(("web",), 4), (("task",), 0)]}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = app_in(tmp_path)
    yield app
    close(app)


def told(values: StoredValues) -> list[str]:
    registry = CollectorRegistry()
    registry.register(values)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def scraped(app: Flask) -> str:
    return app.test_client().get("/metrics").get_data(as_text=True)


def test_every_metric_of_the_table_is_told_with_its_kind(app: Flask) -> None:
    text = scraped(app)
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE slipway_"))
    made = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    assert made == {metric.exposed: metric.kind for metric in ALL.values()}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt install prometheus)")
def test_linter_of_prometheus_finds_nothing(app: Flask) -> None:
    app.test_client().get("/nowhere")
    command = [str(PROMTOOL), "check", "metrics"]
    found = subprocess.run(command, input=scraped(app), text=True, capture_output=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_values_are_told_with_their_labels() -> None:
    lines = told(StoredValues(lambda: HELD, "database_up"))
    assert lines == [
        "slipway_holds 2.0",
        'slipway_processes{kind="web"} 4.0',
        'slipway_processes{kind="task"} 0.0',
        "slipway_database_up 1.0",
    ]


def test_values_are_absent_while_the_database_is_away() -> None:
    away = [False]

    def read() -> Values:
        if away[0]:
            raise DatabaseUnavailable
        return HELD

    values = StoredValues(read, "database_up", keep=0)
    assert "slipway_holds 2.0" in told(values)
    away[0] = True
    assert told(values) == ["slipway_database_up 0.0"]
    away[0] = False
    assert "slipway_holds 2.0" in told(values)


def test_read_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.05)
    over, asked = threading.Event(), list[int]()

    def read() -> Values:
        asked.append(1)
        over.wait(20)
        return HELD

    values = StoredValues(read, "database_up")
    for _ in range(5):
        assert told(values) == ["slipway_database_up 0.0"]
    assert len(asked) == 1  # all of them wait for the same
    over.set()


def test_values_are_kept_for_a_while() -> None:
    asked = list[int]()

    def read() -> Values:
        asked.append(1)
        return HELD

    values = StoredValues(read, keep=60)
    assert [told(values) for _ in range(5)] == [told(values)] * 5
    assert len(asked) == 1


def test_values_of_a_stopped_database_are_absent_in_the_whole_text(app: Flask) -> None:
    db = app.extensions["slipway"].infra.db

    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable

    db.query, before = away, db.query
    text = scraped(app)
    db.query = before
    assert "slipway_database_up 0.0" in text and "slipway_disk_free_bytes " in text
    assert "slipway_holds" not in text and "slipway_cap_overshoot_usd" not in text
