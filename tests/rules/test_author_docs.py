"""The agent of docs/agent-author.md is made as the page says, and does what the page says; so do its faults."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask

from config import load
from service.app import create_app
from tests.agents.house import load as load_agents
from tests.conftest import ROOT, Model, RedisServer
from tests.tables import create_tables

PAGE = (ROOT / "docs" / "agent-author.md").read_text()
OWN_CODE = (ROOT / "docs" / "own-code.md").read_text()
NAMED = re.compile(r"`agents/holidays/([\w/.]+)`.*?^   ```\w+\n(.*?)^   ```$", re.M | re.S)
Edit = Callable[[Path], object]


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """The folder, with every file that the page shows."""
    for name, text in NAMED.findall(PAGE):
        path = tmp_path / "agents" / "holidays" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "agents"


@pytest.fixture
def app(agents: Path, redis_server: RedisServer, model: Model) -> Iterator[Flask]:
    for folder in (ROOT / "agents").iterdir():  # beside those of a clone
        shutil.copytree(folder, agents / folder.name)
    shutil.copy(ROOT / "mcp.yaml", agents.parent)
    yield from app_of(agents, redis_server, model)


def app_of(agents: Path, redis_server: RedisServer, model: Model) -> Iterator[Flask]:
    """Make the app that serves these agents, with an admin."""
    parts = {"REDIS_URL": redis_server.url, "ANTHROPIC_BASE_URL": model.url, "AGENTS_DIR": str(agents)}
    made = create_app(
        load({"APP_ENV": "testing", "SLIPWAY_HOME": str(agents.parent), "LOG_LEVEL": "ERROR", **parts})
    )
    create_tables(made.extensions["slipway"].infra.db.engine)
    made.extensions["slipway"].auth.users.create("root", "root-password", "admin")
    yield made
    made.extensions["slipway"].close()


def test_the_example_has_every_kind_of_file(agents: Path) -> None:
    files = {path.relative_to(agents / "holidays").as_posix() for path in agents.rglob("*") if path.is_file()}
    assert files == {"agent.yaml", "prompt.md", "tools.py", "evals.yaml", "knowledge/rules.md"}


def test_commands_print_the_output_on_the_page(app: Flask) -> None:
    [shown] = re.findall(r"^   ```\n(   \$ \.venv/bin/flask agents check\n.*?)^   ```$", PAGE, re.M | re.S)
    printed = ""
    for command in re.findall(r"^\$ \.venv/bin/flask (.*)$", textwrap.dedent(shown), re.M):
        printed += (
            f"$ .venv/bin/flask {command}\n" + app.test_cli_runner().invoke(args=command.split()).output
        )
    assert printed == textwrap.dedent(shown)


def test_first_answer_comes_as_the_page_shows(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [new, chat] = re.findall(
        r"^\$ \.venv/bin/flask (agents (?:new|chat) .*)\n((?:(?!\$|```).*\n)+)", PAGE, re.M
    )
    monkeypatch.chdir(tmp_path)
    assert app.test_cli_runner().invoke(args=new[0].split()).output == new[1]
    [question] = re.findall(r"^> (.*)$", chat[1], re.M)
    said = app.test_cli_runner().invoke(args=chat[0].split(), input=f"{question}\n").output
    varies = r"run_\w+|\d+ ms|0\.\d{6}"
    assert re.sub(varies, "…", f"> {question}\n{said}") == re.sub(varies, "…", chat[1])


def test_own_code_of_its_page_answers(tmp_path: Path, redis_server: RedisServer, model: Model) -> None:
    code, spec, tools = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", OWN_CODE, re.M | re.S)[:3]
    folder = tmp_path / "agents" / "orders"
    folder.mkdir(parents=True)
    files = {
        "agent.py": code,
        "agent.yaml": spec,
        "tools.py": tools,
        "prompt.md": "You answer questions about orders.",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    with contextmanager(app_of)(folder.parent, redis_server, model) as app:
        command = ["agents", "chat", "orders"]
        said = app.test_cli_runner().invoke(args=command, input="Where is order 17?\nWhere is it?\n").output
    answer = said.partition("ok (")[2].splitlines()[1]
    assert "Order 17 left our house on Monday." in answer and "offline model" not in answer
    assert "Please name the order's number." in said


def put(name: str, old: str, new: str) -> Edit:
    """Replace a text in a file of the folder."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def without_evals(edit: Edit) -> Edit:
    """They name tools, and would be the first fault."""

    def both(folder: Path) -> None:
        (folder / "evals.yaml").unlink()
        edit(folder)

    return both


def link_prompt(folder: Path) -> None:
    (folder / "prompt.md").rename(folder.parent / "shared.md")
    (folder / "prompt.md").symlink_to("../shared.md")


EDITS: list[Edit] = [
    put("agent.yaml", "days_left", "days_lost"),
    put("agent.yaml", "limits", "limit"),
    put("agent.yaml", "steps: 6", "steps: 0"),
    put("tools.py", "typing", "typng"),
    put("tools.py", "name: Annotated[str, Field(max_length=50)]", "name"),
    lambda folder: (folder / "prompt.md").unlink(),
    put("agent.yaml", "react", "single"),
    without_evals(put("agent.yaml", "tools: [days_left, search_knowledge]", "")),
    lambda folder: (folder / "knowledge" / "old.doc").write_text("x"),
    without_evals(put("agent.yaml", "[days_left, search_knowledge]", "[calculator]")),
    link_prompt,
]


def shown_faults() -> list[str]:
    return re.findall(r"^agents/holidays/.*$", PAGE.partition("## What a fault looks like")[2], re.M)


@pytest.mark.parametrize(("edit", "line"), list(zip(EDITS, shown_faults(), strict=True)))
def test_a_fault_looks_as_the_page_shows(agents: Path, edit: Edit, line: str) -> None:
    edit(agents / "holidays")
    catalog = load_agents(agents)
    found = [str(fault).removeprefix(f"{agents.parent}/") for fault in (*catalog.faults, *catalog.warnings)]
    assert line in found
