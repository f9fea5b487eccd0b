"""The import rules hold, and each of them would notice a violation of it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("service", "config", "launcher", "offline_model", "agent_server", "mcp_servers")
# What would break each contract: the line, and the module that it is written into.
VIOLATIONS = {
    "Imports point down": ("service/store/database.py", "import service.runs.start"),
    "Routes stand on what all of them share": ("service/web/body.py", "import service.web.routes.admin"),
    "Blueprints do not know each other": ("service/web/routes/agents.py", "import service.web.routes.admin"),
    "Agent patterns are independent": (
        "service/agents/patterns/react.py",
        "import service.agents.patterns.single",
    ),
    "No web or queue framework below wiring": ("service/runs/slots.py", "import flask"),
    "llm and tools never touch the database": ("service/tools/base.py", "import service.store.runs"),
    "Only llm.build picks the model adapter": ("service/runs/steps.py", "import service.llm.claude"),
    "SQLAlchemy stays in store": ("service/usage/bounds.py", "import sqlalchemy"),
    "The Anthropic SDK has one door": ("service/llm/routing.py", "import anthropic"),
    "Settings are passed in, never imported": ("service/sessions.py", "import config"),
    "Settings depend on nothing that they configure": ("config/checks.py", "import service.types"),
    "The launcher starts programs, and is part of none": ("launcher/banner.py", "import service.types"),
    "The offline model is a program of its own": ("offline_model/text.py", "import config"),
    "The MCP servers are programs of their own": ("mcp_servers/mail.py", "import service.types"),
    "The agent server keeps nothing": ("agent_server/running.py", "import service.store.runs"),
    "The agent server is a program on top": ("service/runs/slots.py", "import agent_server.running"),
    "No cycles anywhere": ("service/types.py", "import service.infra.redis"),
}
# Contracts whose source is all of `service` but these.
EXCEPT = {
    "noflask": {"app", "web", "jobs", "cli", "wiring"},
    "sql": {"store"},
}


def lint(folder: Path) -> dict[str, str]:
    """KEPT or BROKEN, by contract."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110)
    found = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", done.stdout, re.M))
    assert found, done.stdout + done.stderr
    return found


def copied(folder: Path) -> Path:
    shutil.copy(ROOT / ".importlinter", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_contracts_over_all_of_service_list_every_module() -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    folder = ROOT / "service"
    there = {path.parent.name for path in folder.glob("*/__init__.py")}
    there |= {path.stem for path in folder.glob("*.py")} - {"__init__"}
    for contract, excepted in EXCEPT.items():
        listed = rules[f"importlinter:contract:{contract}"]["source_modules"].split()
        assert sorted(listed) == sorted(f"service.{name}" for name in there - excepted), contract


def test_every_contract_is_kept_and_notices_a_violation(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    assert lint(folder) == dict.fromkeys(VIOLATIONS, "KEPT")
    for file, line in VIOLATIONS.values():
        with (folder / file).open("a") as source:
            source.write(f"\n{line}\n")
    assert lint(folder) == dict.fromkeys(VIOLATIONS, "BROKEN")
