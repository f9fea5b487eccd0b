"""Programs started by the launcher."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from config import load
from launcher import programs


@pytest.mark.parametrize(
    ("state", "expected"), [("newest", True), ("older", False), ("none", False), ("broken", False)]
)
def test_only_an_outdated_database_is_migrated(tmp_path: Path, state: str, expected: bool) -> None:
    path = tmp_path / "slipway.db"
    settings = load({"DATABASE_URL": f"sqlite:///{path}", "SLIPWAY_HOME": str(tmp_path)})
    if state == "broken":
        path.write_text("not a database, and long enough to be looked at as one")
    elif state != "none":
        newest = max(file.name[:4] for file in Path("migrations/versions").glob("[0-9]*.py"))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute(
                "INSERT INTO alembic_version VALUES (?)", (newest if state == "newest" else "0001",)
            )
    assert programs.migrated(settings) is expected


@pytest.mark.parametrize(
    ("changes", "started"),
    [
        ({}, {"mail", "calendar"}),
        ({"MAIL_URL": "http://mail:1/mcp"}, {"calendar"}),
        ({"MAIL_URL": "http://mail:1/mcp", "CALENDAR_URL": "http://calendar:1/mcp"}, set()),
        ({"MAIL_URL": "", "CALENDAR_URL": ""}, {"mail", "calendar"}),
        ({"MCP_SERVERS": "elsewhere/mcp.yaml"}, set()),
        ({"AGENTS_DIR": "elsewhere/agents"}, set()),
    ],
)
def test_mcp_servers_are_started_for_our_file_unless_an_address_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], started: set[str]
) -> None:
    for name in ("MAIL_URL", "CALENDAR_URL"):
        monkeypatch.setenv(name, changes.get(name, ""))
    settings = load({"SLIPWAY_HOME": str(tmp_path), "MAIL_PORT": "0", "CALENDAR_PORT": "0", **changes})
    ports = programs.mcp_ports(settings)
    assert ports.keys() == started and all(port > 0 for port in ports.values())
