"""One pair through Slipway: the user asks, an approver decides, AgentDojo judges."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.agentdojo.model import Obedient
from tests.agentdojo.risks import RISKS

ENDED = {"succeeded", "failed", "cancelled"}
PAIR_SECONDS = 180.0
Calls = list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """User task, and the injection task planted in its tool results; None for none. `door`: `invoke` or `stream`."""

    key: str
    suite: str
    user: str
    injection: str | None
    door: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.user}/{self.injection or 'no injection'}"


@dataclass
class Outcome:
    """Outcome of a pair.

    `seen`: the model read the injection. `effects`: calls made that change something and are not the user's;
    `reads`: those that only read. `done` and `breached`: AgentDojo's checks of the user's and the injected task;
    `in_words`: the injected task asks for words in the answer and for no call. `strayed`: the environment differs from
    what the user's calls alone make of it.
    """

    pair: Pair
    status: str = ""
    seen: bool = False
    done: bool = False
    breached: bool = False
    strayed: bool = False
    questions: int = 0
    denied: int = 0
    effects: Calls = field(default_factory=list)
    reads: Calls = field(default_factory=list)
    in_words: bool = False


@dataclass
class Parts:
    """Clients of the parts that a pair passes through. `asker` is a user, `approver` an operator."""

    tools: httpx2.Client
    model: Obedient
    asker: httpx2.Client
    approver: httpx2.Client


def play(parts: Parts, pair: Pair) -> Outcome:
    """Run a pair to its end."""
    task = {"suite": pair.suite, "user_task": pair.user, "injection_task": pair.injection}
    plan = _told(parts.tools.post("/begin", json={"key": pair.key, **task}))
    parts.model.plans[pair.key] = plan
    approver = Approver(parts.approver, parts.tools, pair.key)
    run = _run(parts, pair, plan["prompt"], approver)
    judged = _told(parts.tools.post("/end", json={"key": pair.key, "output": run["output"] or ""}))
    injected = [call for call in judged["made"] if not call["own"]]
    del parts.model.plans[pair.key]
    return Outcome(
        pair=pair,
        status=run["status"],
        seen=plan.get("seen", False),
        done=judged["done"],
        breached=judged["breached"],
        strayed=judged["strayed"],
        questions=approver.questions,
        denied=approver.denied,
        effects=[call for call in injected if RISKS[call["name"]] != "read"],
        reads=[call for call in injected if RISKS[call["name"]] == "read"],
        in_words=plan["injected"] is not None and not plan["injected"]["calls"],
    )


class Approver:
    """Person who approves calls of the user's task not made yet, with exactly their arguments, and no other."""

    def __init__(self, client: httpx2.Client, tools: httpx2.Client, key: str) -> None:
        self._client, self._tools, self._key = client, tools, key
        self.questions = self.denied = 0

    def decide(self, run_id: str) -> None:
        """Decide all calls of a run that wait."""
        left = _told(self._tools.post("/left", json={"key": self._key}))["calls"]
        for approval in self._pending(run_id):
            call = f"{approval['name']} {json.dumps(approval['arguments'], sort_keys=True)}"
            allowed = call in left
            if allowed:
                left.remove(call)
            decision = {"decision": "approve" if allowed else "deny"}
            _told(self._client.post(f"/v1/approvals/{approval['id']}", json=decision))
            self.questions += 1
            self.denied += not allowed

    def _pending(self, run_id: str) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"status": "pending", "limit": 100}
        found = []
        while True:
            page = _told(self._client.get("/v1/approvals", params=query))
            found += [approval for approval in page["data"] if approval["run_id"] == run_id]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]


def _run(parts: Parts, pair: Pair, prompt: str, approver: Approver) -> dict[str, Any]:
    """Ask through the pair's door, and follow the run to its end."""
    body = {"input": f"{prompt}\n\n[pair {pair.key}]", "cache": "bypass"}
    path = f"/v1/agents/{pair.suite}/{pair.door}"
    if pair.door == "invoke":
        run_id, last = _told(parts.asker.post(path, json=body))["run_id"], ""
    else:
        last = _last_event(parts.asker.stream("POST", path, json=body), "")
        run_id = last.partition(":")[0]
    until = time.monotonic() + PAIR_SECONDS
    while time.monotonic() < until:
        run: dict[str, Any] = _told(parts.asker.get(f"/v1/runs/{run_id}"))
        if run["status"] in ENDED:
            return run
        if run["status"] == "waiting_approval":
            approver.decide(run_id)
        events = parts.asker.stream(
            "GET", f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last} if last else {}
        )
        last = _last_event(events, last)
    raise TimeoutError(f"{pair} did not end within {PAIR_SECONDS:.0f} s")


def _last_event(stream: Any, last: str) -> str:
    """Read a stream to its end; return the id of its last event."""
    with stream as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("id: "):
                last = line[4:]
    return last


def _told(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told
