"""`flask mcp`: list, check, accept, and credentials from standard input."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from service.audit.record import Action
from service.store import mcp as rows
from service.wiring import Services
from tests.cli.house import Flask_, flask, services, table, whole
from tests.conftest import Model, RedisServer
from tests.mcp import house

__all__ = ["flask", "services", "whole"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evil")


@pytest.fixture(scope="module")
def env(folder: Path, redis_server: RedisServer, model: Model) -> dict[str, str]:
    away = {"url": "http://127.0.0.1:9/mcp", "tools": {"send": {"risk": "danger"}}}
    servers = {"evil": house.stdio(folder), "away": {**away, "credentials": "service"}}
    (folder / "mcp.yaml").write_text(yaml.safe_dump({"servers": servers}))
    return {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(folder),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
        "LOG_LEVEL": "ERROR",
        "MCP_SERVERS": str(folder / "mcp.yaml"),
    }


def test_check_reaches_each_server_and_pins(flask: Flask_) -> None:
    told = flask("mcp", "check", code=1).output.splitlines()
    assert sorted(told) == ["away: is not reached", "evil: reached"]
    listed = {row[0]: row for row in table(flask("mcp", "list"))}
    assert listed["evil.pay"][1:3] == ["write", "accepted"]
    assert listed["away.send"][1:3] == ["danger", "unseen"]


def test_changed_definition_is_listed_and_accepted_with_a_row_in_the_audit(
    flask: Flask_, services: Services, folder: Path
) -> None:
    flask("mcp", "check", code=1)
    other = rows.Definition("1" * 64, {"name": "pay", "description": "Other.", "input_schema": {}})
    services.infra.db.transact(lambda tx: rows.see(tx, "evil", {"pay": other}))
    assert "changed" in flask("mcp", "list").output
    assert "Other." in flask("mcp", "accept", "evil", "pay").output
    assert Action.MCP_ACCEPTED in flask("audit", "export").output
    assert "has no changed definition" in flask("mcp", "accept", "evil", "pay", code=1).output


def test_credential_comes_from_standard_input_and_is_never_shown(flask: Flask_, services: Services) -> None:
    told = flask("mcp", "credential", "set", "away", stdin="tok_canary\n")
    assert "tok_canary" not in told.output
    sealed = services.infra.db.query(lambda tx: rows.credential(tx, "away"))
    assert sealed and "tok_canary" not in sealed
    assert services.mcp.credentials.find("away", "service", "") == "tok_canary"
    exported = flask("audit", "export").output
    assert Action.MCP_CREDENTIAL in exported and "tok_canary" not in exported
    flask("mcp", "credential", "remove", "away")
    assert services.infra.db.query(lambda tx: rows.credential(tx, "away")) is None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["evil"], "credentials: none"),
        (["away", "--user", "ada"], "credentials: service"),
        (["nowhere"], "There is no MCP server"),
    ],
)
def test_credentials_without_use_are_refused(flask: Flask_, words: list[str], fault: str) -> None:
    assert fault in flask("mcp", "credential", "set", *words, stdin="x\n", code=1).output


def test_credential_that_no_header_can_carry_is_refused(flask: Flask_) -> None:
    assert "printable ASCII" in flask("mcp", "credential", "set", "away", stdin="\n", code=1).output
