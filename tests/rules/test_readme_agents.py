"""Every bundled agent answers its question of the README, by invoke and stream; tasks are in `tests/jobs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import ROOT, Model, RedisServer, Slipway, slipway_server
from tests.mcp_servers.house import Desk
from tests.web.test_doors import events_of

ROWS = re.findall(
    r"^\| \[(\w+)\]\(agents/\1\) \| [^|]+ \| ([^|]+) \|$", (ROOT / "README.md").read_text(), re.M
)


@pytest.fixture(scope="module")
def slipway(
    scratch: Path, redis_server: RedisServer, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slipway]:
    """With the MCP servers of `concierge`."""
    with (
        Desk(tmp_path_factory.mktemp("desk")).start() as desk,
        slipway_server(scratch / "readme", redis_server.url, model.url, THREADS="8", **desk.env) as server,
    ):
        yield server


def answer(client: httpx2.Client, agent: str, question: str, door: str) -> dict[str, Any]:
    """Ask through a door; return the run's result."""
    answered = client.post(f"/v1/agents/{agent}/{door}", json={"input": question, "cache": "bypass"})
    assert answered.status_code == 200, answered.text
    if door == "stream":
        events = events_of(answered.text)
        told = "".join(data["text"] for _, name, data in events if name == "text.delta")
        result: dict[str, Any] = events[-1][2]
        assert told == result["output"]
        return result
    return dict(answered.json())


def test_every_bundled_agent_has_a_question() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(path.name for path in (ROOT / "agents").iterdir())


@pytest.mark.parametrize(("agent", "question"), ROWS, ids=[name for name, _ in ROWS])
def test_the_question_has_an_answer_at_each_door(client: httpx2.Client, agent: str, question: str) -> None:
    results = [answer(client, agent, question, door) for door in ("invoke", "stream")]
    assert [result["status"] for result in results] == ["succeeded"] * 2
    first, second = ({name: one[name] for name in ("output", "sources", "steps")} for one in results)
    assert first == second and first["output"]
    assert not first["output"].startswith("I am")  # the offline model had no answer


def test_the_writer_revises_to_the_length_asked_for(client: httpx2.Client) -> None:
    result = answer(client, "writer", dict(ROWS)["writer"], "stream")
    assert result["output"] == "Harbor stops on Sunday at 02:00 UTC for two hours. Local files stay usable."
    assert result["steps"] == 4


def test_the_concierge_reads_the_mail(client: httpx2.Client) -> None:
    result = answer(client, "concierge", dict(ROWS)["concierge"], "invoke")
    assert [(tool["name"], tool["ok"]) for tool in result["tools"]] == [
        ("mail.list", True),
        ("mail.read", True),
    ]
    assert "on Thursday or on Friday" in result["output"]


def test_the_researcher_quotes_its_library_word_for_word(client: httpx2.Client) -> None:
    result = answer(client, "research", dict(ROWS)["research"], "invoke")
    assert [tool["name"] for tool in result["tools"]] == ["search_knowledge"]
    assert result["sources"]
    for source in result["sources"]:
        library = (ROOT / "agents/research" / source["uri"].partition("#")[0]).read_text()
        assert " ".join(source["quote"].split()) in " ".join(library.split())
