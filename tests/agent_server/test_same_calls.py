"""An agent served alone asks the model for the same as in Slipway itself: the same models, prompts and token limits."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.agent_server import house
from tests.agent_server.house import Piece, asks
from tests.conftest import ROOT, Model, RedisServer
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.runs import inside

AGENTS = {
    "research": "How does delta sync find changed blocks? Why is a sync no backup?",
    "writer": "Write a reply from these notes: The invoice was sent twice. Only one of them is due.",
    "assistant": "What is 17 * 23?",
    "support": "How do I reset my password?",
    "analyst": "How many orders were there in 2025?",
}


MARKED = r"Reference of these instructions: #\w+\. [^.]*\.\\n\\n"


class Recorder:
    """Handler that passes calls on to the offline model, and keeps their bodies."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, exchange: Exchange) -> None:
        path = exchange.head.split(b" ")[1].decode()
        answer = httpx2.post(
            self._model.url + path,
            content=exchange.body,
            headers={"content-type": "application/json", "x-api-key": "any"},
            trust_env=False,
        )
        if path == "/v1/messages":
            with self._lock:
                self.bodies.append(exchange.json)
        whole(answer.content, answer.status_code)(exchange)

    def take(self) -> list[dict[str, Any]]:
        """Return the bodies so far; forget them.

        Without the id of the user, which is not told to a piece, without the ids that the model gives its calls and the
        names of fences, which are made from these, and without the marker of prompts, for which a piece has no secret.
        """
        bodies, self.bodies = self.bodies, []
        told = [{name: value for name, value in body.items() if name != "metadata"} for body in bodies]
        text = re.sub(r"toolu_\w+", "toolu", json.dumps(told))
        text = re.sub(r"untrusted-[0-9a-f]{16}", "untrusted", text)
        same: list[dict[str, Any]] = json.loads(re.sub(MARKED, "", text))
        return same


@pytest.fixture
def recorder(model: Model) -> Recorder:
    return Recorder(model)


@pytest.fixture
def gateway(recorder: Recorder) -> Iterator[WireServer]:
    server = WireServer(recorder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Piece]:
    folders = [ROOT / "agents" / name for name in AGENTS]
    with house.served(tmp_path_factory.mktemp("same") / "log", folders) as running:
        yield running


@pytest.mark.parametrize("agent", AGENTS)
def test_calls_and_answer_are_those_of_slipway_itself(
    tmp_path: Path,
    redis_server: RedisServer,
    recorder: Recorder,
    gateway: WireServer,
    pieces: Piece,
    agent: str,
) -> None:
    question = AGENTS[agent]
    with inside.services(tmp_path, redis_server.url, gateway.url, agents_dir=ROOT / "agents") as wired:
        run = inside.ask(wired, question, agent=agent, cache="bypass")
    assert run.result is not None and run.status == "succeeded", run.error
    in_one = recorder.take()
    answer = pieces.ask(agent, **asks(gateway.url, question)).json()
    assert recorder.take() == in_one
    for name in ("output", "structured", "stop_reason", "model", "sources"):
        assert answer[name] == run.result[name], name
    assert [(use["name"], use["ok"]) for use in answer["tools"]] == [
        (use["name"], use["ok"]) for use in run.result["tools"]
    ]
