"""`flask agents` over agents and tools of an installed package."""

from __future__ import annotations

import json
from pathlib import Path

from flask import Flask

from config import load
from service.app import create_app
from tests.agents.installed import AGENTS, STAMP, TOOLS, Install, add_agent, install
from tests.cli.house import env, whole

__all__ = ["env", "install", "whole"]


def test_origin_is_listed_and_the_agent_answers(
    env: dict[str, str], whole: Flask, install: Install, tmp_path: Path
) -> None:
    (tmp_path / "agents").mkdir()
    own = {AGENTS: {"library": "acme_tools.library"}, TOOLS: {"stamp": "acme_tools.stamps:stamp"}}
    install("acme-tools", own, stamps=STAMP)
    add_agent(tmp_path, "acme_tools")
    settings = {**env, "AGENTS_DIR": str(tmp_path / "agents"), "AGENT_PACKAGES": "acme-tools"}
    runner = create_app(load(settings)).test_cli_runner()
    listed = runner.invoke(args=["agents", "list"]).stdout.splitlines()
    assert (
        listed[0].split()[-1] == "ORIGIN" and listed[1].startswith("library") and listed[1].endswith(" 1.2")
    )
    assert [line.split() for line in listed[3:]] == [
        ["TOOL", "ORIGIN"],
        ["acme_tools_stamp", "acme-tools", "1.2"],
    ]
    [agent] = json.loads(runner.invoke(args=["agents", "list", "--json"]).stdout)
    assert agent["origin"] == "acme-tools 1.2"
    said = runner.invoke(args=["agents", "chat", "library"], input='Call acme_tools_stamp with "x".\n')
    assert said.exit_code == 0 and "stamped x" in said.stdout, said.output
    refused = runner.invoke(args=["agents", "new", "library", "--pattern", "single"])
    assert "There is an agent library already" in refused.stderr
