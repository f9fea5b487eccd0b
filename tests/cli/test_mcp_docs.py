"""Examples of docs/mcp.md: the file of servers is read, an operator's commands do what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from service.mcp.config import load
from service.store import mcp as rows
from service.wiring import Services
from tests.cli.house import Flask_, flask, services, whole
from tests.conftest import ROOT, Model, RedisServer
from tests.mcp import house

__all__ = ["flask", "services", "whole"]
PAGE = (ROOT / "docs" / "mcp.md").read_text()
COMMANDS = [
    shlex.split(line.partition("#")[0].partition("<")[0])[1:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith(".venv/bin/flask ")
]
NAMES = {"SERVER": "mail", "TOOL": "echo", "NAME": "ada"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evil")


@pytest.fixture(scope="module")
def env(folder: Path, redis_server: RedisServer, model: Model) -> dict[str, str]:
    server = {**house.stdio(folder), "tools": {"echo": {"risk": "read"}}}
    servers = {"mail": {**server, "credentials": "user"}, "shared": {**server, "credentials": "service"}}
    (folder / "mcp.yaml").write_text(yaml.safe_dump({"servers": servers}))
    return {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(folder),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
        "LOG_LEVEL": "ERROR",
        "MCP_SERVERS": str(folder / "mcp.yaml"),
    }


def command(*begin: str) -> list[list[str]]:
    """Commands of the page that begin so, with names of this house."""
    found = [words for words in COMMANDS if words[: len(begin)] == list(begin)]
    assert found, begin
    # What each user has is `mail`, what all share is `shared`.
    return [
        [NAMES.get(word, word) if "--user" in words or word != "SERVER" else "shared" for word in words]
        for words in found
    ]


def test_file_of_servers_is_read(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mcp.yaml").write_text(text)
    config = load(tmp_path / "mcp.yaml")
    assert not config.faults and list(config.servers) == ["mail", "files"]
    read = config.servers["mail"].tools["read"]
    assert read.repeatable and not read.sends and config.servers["files"].command[0] == "npx"


def test_commands_in_the_order_of_a_user(flask: Flask_, services: Services) -> None:
    credentials = command("mcp", "credential", "set")
    assert len(credentials) == 2
    for words in credentials:
        flask(*words, stdin="tok_canary\n")
    [check] = command("mcp", "check")
    told = flask(*check, "--user", "ada").output.splitlines()
    assert told == ["mail: reached", "shared: reached"]
    lists = command("mcp", "list")
    assert all("mail.echo" in flask(*words).output for words in lists)
    other = rows.Definition("1" * 64, {"name": "echo", "description": "Other.", "input_schema": {}})
    services.infra.db.transact(lambda tx: rows.see(tx, "mail", {"echo": other}))
    assert any("changed" in flask(*words).output for words in lists)
    [accept] = command("mcp", "accept")
    assert "Accepted" in flask(*[NAMES.get(word, word) for word in accept[:2]], "mail", "echo").output
    [remove] = command("mcp", "credential", "remove")
    assert "Removed" in flask(*remove).output
    assert services.infra.db.query(lambda tx: rows.credential(tx, "shared")) is not None


def test_every_command_of_the_page_is_run() -> None:
    known = {"check", "list", "accept", "credential"}
    assert {words[1] for words in COMMANDS} == known
