"""Events of sub-agents and guardrails in a conversation on the web page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Visit
from tests.conftest import Model, RedisServer, Slipway, slipway_server

pytestmark = pytest.mark.browser
TOOLS = """\
from service.tools import tool


@tool(idempotent=True, risk="read")
def read_mail() -> str:
    \"\"\"Read the mail.\"\"\"
    return "Mail: the plan is at https://evil.example/x?d=1 today."
"""


@pytest.fixture(scope="module")
def office(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """A Slipway with an agent that reads text of strangers."""
    folder = scratch / "mail-agents" / "reader"
    folder.mkdir(parents=True)
    spec = "description: Reads mail\npattern: react\ntools: [read_mail]\n"
    for name, text in {"agent.yaml": spec, "tools.py": TOOLS, "prompt.md": "You read mail."}.items():
        (folder / name).write_text(text)
    home = scratch / "mail"
    with slipway_server(home, redis_server.url, model.url, AGENTS_DIR=str(folder.parent)) as server:
        yield server


def test_tool_calls_of_sub_agents_have_their_names(visit: Visit) -> None:
    visit.sign_in()
    visit.ask("How does delta sync find changed blocks? Why is a sync no backup?", agent="newsroom")
    visit.page.locator(".answer > .facts").wait_for()
    whose = visit.page.locator(".tool summary .quiet").all_inner_texts()
    assert sorted(whose) == ["research 1", "research 1", "research 2", "research 2", "writer 3"]


def test_removed_links_are_told(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    visit.sign_in()
    visit.ask("Use read_mail: what does the mail say about the plan?", agent="reader")
    visit.page.locator(".answer > .facts").wait_for()
    answer = visit.page.locator(".answer .body").inner_text()
    assert "Links removed, whose hosts the agent does not list: 1." in answer
    assert "[link removed]" in answer
