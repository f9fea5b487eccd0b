"""An author at work: files are edited under a running Slipway with two workers, and count from the next request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.agents.house import GOOD, REACT, TOOLS, write
from tests.conftest import RedisServer, Slipway, slipway_server
from tests.llm.wire_server import MESSAGE, WireServer, whole
from tests.runs.scripted import Upstream
from tests.web.test_doors import events_of

ROUTER = """\
description: A test agent.
pattern: router
categories:
  hours: {description: When.}
  rest: {description: The rest.}
"""
WORKERS = 2


@dataclass
class Desk:
    """Running Slipway, its folder of agents, and its log."""

    server: Slipway
    client: httpx2.Client
    agents: Path
    upstream: WireServer

    def ask(self, agent: str, **more: Any) -> dict[str, Any]:
        asked = {"input": "When does the harbour open?", "cache": "bypass", **more}
        answer = self.client.post(f"/v1/agents/{agent}/invoke", json=asked)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ask_all(self, agent: str, **more: Any) -> list[dict[str, Any]]:
        """Often enough for every worker to be among those who answer."""
        return [self.ask(agent, **more) for _ in range(6 * WORKERS)]

    def version(self, agent: str) -> str:
        return str(self.client.get(f"/v1/agents/{agent}").json()["version"])

    def sent(self) -> str:
        """The last request to the model."""
        return json.dumps(self.upstream.requests[-1].json)

    def said(self, agent: str) -> list[str]:
        """Lines of the log about an agent's folder."""
        lines = [
            json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")
        ]
        mine = [line for line in lines if line["logger"] == "slipway.agents" and line["agent"] == agent]
        return [f"{line['event']} {line.get('fault', '')}".strip() for line in mine]


@pytest.fixture(scope="module")
def upstream() -> Iterator[WireServer]:
    server = Upstream(whole(MESSAGE))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, upstream: WireServer
) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("desk")
    agents = home / "agents"
    write(agents, "steady", agent_yaml=GOOD, prompt_md="Be steady.")
    settings = {"AGENTS_DIR": str(agents), "RELOAD": "1", "WEB_CONCURRENCY": str(WORKERS), "THREADS": "12"}
    settings["SWEEP_SECONDS"] = "1e9"  # upkeep reads changed folders too, and must not be what a test sees
    with (
        slipway_server(home / "home", redis_server.url, upstream.url, **settings) as server,
        closing(server.client()) as client,
    ):
        yield Desk(server, client, agents, upstream)


def test_an_edited_prompt_counts_from_the_next_request_of_every_worker(desk: Desk) -> None:
    write(desk.agents, "prompted", agent_yaml=GOOD, prompt_md="Be first.")
    old = {run["agent_version"] for run in desk.ask_all("prompted")}
    write(desk.agents, "prompted", prompt_md="Be second.")
    new = set()
    for run in desk.ask_all("prompted"):
        new.add(run["agent_version"])
        assert "Be second." in desk.sent()
    assert len(old) == len(new) == 1 and old != new == {desk.version("prompted")}
    assert desk.said("prompted") == ["agent_loaded", "agent_loaded"]  # the new folder and the edit, each once


def test_an_edited_agent_yaml_counts(desk: Desk) -> None:
    write(desk.agents, "limited", agent_yaml=GOOD, prompt_md="x")
    assert desk.client.get("/v1/agents/limited").json()["limits"]["steps"] == 10
    write(desk.agents, "limited", agent_yaml=GOOD + "limits: {steps: 3, model_seconds: 45}\n")
    limits = desk.client.get("/v1/agents/limited").json()["limits"]
    assert (limits["steps"], limits["model_seconds"]) == (3, 45)


def test_an_edited_tool_counts(desk: Desk) -> None:
    write(desk.agents, "handy", agent_yaml=REACT + "tools: [look]\n", prompt_md="x", tools_py=TOOLS)
    desk.ask_all("handy")
    assert "Look at something." in desk.sent()
    write(desk.agents, "handy", tools_py=TOOLS.replace("Look at", "Gaze upon"))
    for _ in desk.ask_all("handy"):
        assert "Gaze upon something." in desk.sent()


def test_an_edited_document_counts(desk: Desk) -> None:
    documents = {
        "knowledge__hours__a_md": "# Harbour\nIt opens at nine.",
        "knowledge__rest__b_md": "# B\nText.",
    }
    write(desk.agents, "learned", agent_yaml=ROUTER, prompt_md="x", **documents)
    desk.upstream.otherwise = whole(
        {**MESSAGE, "content": [{"type": "text", "text": '{"category": "hours"}'}]}
    )
    try:
        desk.ask_all("learned")
        assert "It opens at nine." in desk.sent()
        write(desk.agents, "learned", knowledge__hours__a_md="# Harbour\nIt opens at ten.")
        for _ in desk.ask_all("learned"):
            assert "It opens at ten." in desk.sent()
    finally:
        desk.upstream.otherwise = whole(MESSAGE)


def test_a_new_folder_is_there_and_a_removed_one_is_gone(desk: Desk) -> None:
    assert desk.client.get("/v1/agents/passing").status_code == 404
    write(desk.agents, "passing", agent_yaml=GOOD, prompt_md="x")
    desk.ask_all("passing")
    assert "passing" in [agent["id"] for agent in desk.client.get("/v1/agents").json()["data"]]
    shutil.rmtree(desk.agents / "passing")
    gone = [desk.client.post("/v1/agents/passing/invoke", json={"input": "x"}) for _ in range(6)]
    assert {answer.status_code for answer in gone} == {404}
    assert desk.said("passing") == ["agent_loaded", "agent_removed"]


def test_broken_edit_keeps_the_last_good_version_and_is_logged_once(desk: Desk) -> None:
    write(desk.agents, "fragile", agent_yaml=GOOD, prompt_md="x")
    good = desk.version("fragile")
    write(desk.agents, "fragile", agent_yaml="description: x\npattern: sinlge\n")
    assert {run["agent_version"] for run in desk.ask_all("fragile")} == {good}
    write(desk.agents, "fragile", agent_yaml=GOOD + "limits: {steps: 2}\n")
    assert good not in {run["agent_version"] for run in desk.ask_all("fragile")}
    where = f"{desk.agents}/fragile/agent.yaml:2"
    assert desk.said("fragile") == [
        "agent_loaded",
        f"agent_fault {where}: pattern: there is no pattern 'sinlge'; did you mean 'single'?",
        "agent_fixed",
    ]


def test_health_checks_read_no_agents(desk: Desk, tmp_path: Path) -> None:
    """A `tools.py` may take seconds to import; whoever asks for health does not wait for it."""
    read = tmp_path / "read"
    tools = f"{TOOLS}\nfrom pathlib import Path\n\nPath({str(read)!r}).touch()\n"
    write(desk.agents, "slowly", agent_yaml=REACT, prompt_md="Be slow.", tools_py=tools)
    for path in ("/health", "/ready", "/metrics") * WORKERS:
        desk.client.get(path)
    assert not read.exists()
    desk.client.get("/v1/agents")
    assert read.exists()
    shutil.rmtree(desk.agents / "slowly")


def test_answers_name_the_version_of_their_agent(desk: Desk) -> None:
    cached = GOOD + "cache: {ttl_seconds: 600}\n"
    write(desk.agents, "kept", agent_yaml=cached, prompt_md="Be first.")
    first, again = (desk.ask("kept", cache="default") for _ in range(2))
    assert (first["cache"], again["cache"]) == ("miss", "hit")
    write(desk.agents, "kept", prompt_md="Be second.")
    version = desk.version("kept")
    second = desk.ask("kept", cache="default")
    assert (second["cache"], second["agent_version"], first["agent_version"] != version) == (
        "miss",
        version,
        True,
    )
    assert desk.ask("kept", cache="default")["agent_version"] == version
    seen = desk.client.get(f"/v1/runs/{first['run_id']}").json()
    assert seen["agent_version"] == first["agent_version"]  # it stays with the run
    listed = desk.client.get("/v1/runs?agent=kept").json()["data"]
    assert {run["run_id"]: run["agent_version"] for run in listed}[second["run_id"]] == version
    streamed = desk.client.post("/v1/agents/kept/stream", json={"input": "x", "cache": "bypass"}).text
    told = [data.get("agent_version") for _, _, data in events_of(streamed)]
    assert told[0] == told[-1] == version


def test_misspelt_agent_gets_a_suggestion(desk: Desk) -> None:
    answer = desk.client.post("/v1/agents/staedy/invoke", json={"input": "x"})
    assert answer.json()["detail"] == "There is no agent named staedy; did you mean 'steady'?"
    answer = desk.client.post("/v1/agents/staedy/tasks", json={"input": "x"})
    assert (answer.status_code, "'steady'" in answer.json()["detail"]) == (404, True)
    answer = desk.client.post("/v1/sessions", json={"agent": "staedy"})
    assert (answer.status_code, "'steady'" in answer.json()["detail"]) == (422, True)
    key = desk.client.post("/v1/auth/keys", json={"name": "narrow", "scopes": ["agents:other"]}).json()["key"]
    narrow = {"Authorization": f"Bearer {key}"}
    answer = desk.client.post("/v1/agents/staedy/invoke", json={"input": "x"}, headers=narrow)
    assert (answer.status_code, "steady" in answer.json()["detail"]) == (404, False)
