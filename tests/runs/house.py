"""Questions, runs and a cache over the tests' own Redis, without anything else of the service."""

from __future__ import annotations

from typing import Any

from service.agents.definitions import AgentDefinition
from service.cache.normalise import Normaliser
from service.ids import new_id
from service.types import Caller, Run, RunRequest, RunStatus
from tests.agents.house import load
from tests.conftest import ROOT

AGENTS = load(ROOT / "agents").agents
ASSISTANT, SUPPORT, ANALYST = AGENTS["assistant"], AGENTS["support"], AGENTS["analyst"]
ADA, BOB = Caller("usr_ada", "ada", "user"), Caller("usr_bob", "bob", "user")
PLAIN = Normaliser(["please", "hi"])


def asked(text: Any, agent: AgentDefinition = ASSISTANT, **fields: Any) -> RunRequest:
    return RunRequest(agent.id, ({"role": "user", "content": text},), **fields)


def run_of(request: RunRequest, caller: Caller = ADA, door: Any = "invoke", cache: str = "miss") -> Run:
    return Run(new_id("run"), caller.user_id, request.agent, "1", door, request, cache=cache)


def answered(run: Run, output: str = "An answer.", **changed: Any) -> Run:
    """As the runner leaves it."""
    run.status = RunStatus.SUCCEEDED
    result = {
        "structured": None,
        "stop_reason": "end_turn",
        "model": "m",
        "tier": "simple",
        "steps": 1,
        "tools": [],
        "sources": [],
    }
    run.result = {"output": output, **result, **changed}
    return run


def failed(run: Run, code: str, detail: str = "It failed.") -> Run:
    run.status = RunStatus.FAILED
    run.error = {"code": code, "detail": detail, "status": 500}
    run.result = {"output": "", "stop_reason": None}
    return run
