"""Definitions of the bundled servers: their digests are pinned in databases out there."""

from __future__ import annotations

from pathlib import Path

import mcp_types
import pytest

from mcp_servers import appointments, mail
from service.mcp.config import load
from service.mcp.connection import definition_of
from tests.conftest import ROOT

# A change turns the tool off, wherever it is pinned, until `flask mcp accept`: say so under *Required* in CHANGELOG.md.
DIGESTS = {
    "mail.list": "7c1f8e468e35718e9c65b1d2bf777cdeeb5b3f0e064daff0c31f36c7b6d074b2",
    "mail.read": "be22512964f30617430d52833f816f75819c759c3752b1f1c6e90b581e9cd4d2",
    "mail.send": "0f4316f01e61ce89f96b12e2591d8b0dbdffd6ee8d2b048851b3bd7e5d0d8143",
    "calendar.list": "b3f50e129f4e5a8743ab2f2dbeb35bdd75c3741af75393a9735a7a2d3af9e28d",
    "calendar.book": "1fa12af633fd999ec877db08c6ef370893b607d2f5619f7ad07f2e6cd626b875",
}


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for server, tools in (("mail", mail.tools(folder)), ("calendar", appointments.tools(folder))):
        for tool in tools:
            sent = mcp_types.Tool(name=tool.name, description=tool.description, input_schema=tool.schema)
            definition = definition_of(sent)
            assert definition is not None
            found[f"{server}.{tool.name}"] = definition.digest
    return found


def test_definitions_are_those_that_were_pinned(tmp_path: Path) -> None:
    assert digests(tmp_path) == DIGESTS


def test_file_of_servers_has_each_tool_with_its_risk() -> None:
    config = load(ROOT / "mcp.yaml")
    assert config.faults == ()
    rules = {
        f"{server}.{name}": (rule.risk, rule.repeatable)
        for server, spec in config.servers.items()
        for name, rule in spec.tools.items()
    }
    assert rules.keys() == DIGESTS.keys()
    assert {name for name, (risk, _) in rules.items() if risk == "danger"} == {"mail.send", "calendar.book"}
    assert all(repeatable == (risk == "read") for risk, repeatable in rules.values())


@pytest.mark.parametrize(("server", "port"), [("mail", 9201), ("calendar", 9202)])
def test_addresses_come_from_the_environment_or_are_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, server: str, port: int
) -> None:
    spec = load(ROOT / "mcp.yaml").servers[server]
    monkeypatch.setenv(f"{server.upper()}_URL", "http://elsewhere:1/mcp")
    assert spec.address == "http://elsewhere:1/mcp"
    monkeypatch.delenv(f"{server.upper()}_URL")
    assert spec.address == f"http://127.0.0.1:{port}/mcp"
