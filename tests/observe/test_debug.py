"""LOG_LEVEL=DEBUG with everything that `make run` starts: no content and no secret in any log."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import wait_until
from tests.launcher.house import Launcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
AGENT = """\
description: Writes lines, for tests
pattern: react
tier: {default: simple}
tools: [write_line]
approvals: [write_line]
limits: {steps: 6, seconds: 60}
"""
TOOLS = """\
from service.tools import tool


@tool()
def write_line(text: str) -> str:
    \"\"\"Write a line.\"\"\"
    return f"written: {text}"
"""


@pytest.fixture
def launched(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """At DEBUG, by the SDK's own switch too."""
    folder = scratch / "debug-agents" / "clerk"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(AGENT)
    (folder / "prompt.md").write_text("You write lines with your tool.")
    (folder / "tools.py").write_text(TOOLS)
    wanted = {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json", "ANTHROPIC_LOG": "debug"}
    for name, value in {**wanted, "AGENTS_DIR": str(folder.parent)}.items():
        monkeypatch.setenv(name, value)
    launcher = Launcher(scratch / "debug")
    try:
        launcher.start()
        yield launcher
    finally:
        launcher.end()


def ended(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    """The run, once it has ended or waits for a person."""
    waits = ("queued", "running")

    def run() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        return None if found["status"] in waits else found

    return dict(wait_until(run, "the end of the run", 60))


def test_debug_logs_hold_no_content_and_no_secret(launched: Launcher) -> None:
    mark = {
        name: f"{name}-{secrets.token_hex(8)}"
        for name in ("prompt", "argument", "title", "comment", "metadata", "context", "password", "wrong")
    }
    hidden = list(mark.values())
    with httpx2.Client(base_url=launched.url, timeout=60, trust_env=False) as client:
        who = {"username": "demo", "password": "demo-password"}
        token = client.post("/v1/auth/login", json=who).json()["access_token"]
        admin = {"Authorization": f"Bearer {token}"}
        person = {"username": "ada", "password": mark["password"], "role": "operator"}
        assert client.post("/v1/admin/users", json=person, headers=admin).status_code == 201
        pair = client.post("/v1/auth/login", json={key: person[key] for key in ("username", "password")})
        assert client.post("/v1/auth/login", json={**who, "password": mark["wrong"]}).status_code == 401
        client.headers["Authorization"] = f"Bearer {pair.json()['access_token']}"
        key = client.post("/v1/auth/keys", json={"name": "k"}).json()["key"]
        hidden += [token, pair.json()["access_token"], pair.json()["refresh_token"], key]
        session = client.post("/v1/sessions", json={"agent": "clerk", "title": mark["title"]}).json()["id"]
        client.headers["Authorization"] = f"Bearer {key}"
        for door in ("invoke", "tasks"):  # in a web worker, and in a task worker
            body = {
                "input": f'Call the write_line tool with "{mark["argument"]}". {mark["prompt"]}',
                "session_id": session,
                "metadata": {"note": mark["metadata"]},
                "context": {"note": mark["context"]},
            }
            answer = client.post(f"/v1/agents/clerk/{door}", json=body)
            assert answer.status_code in (200, 202), answer.text
            run = ended(client, answer.json()["run_id"])
            assert run["status"] == "waiting_approval", run
            [asked] = client.get("/v1/approvals?status=pending").json()["data"]
            decision = {"decision": "approve", "comment": mark["comment"]}
            assert client.post(f"/v1/approvals/{asked['id']}", json=decision).status_code == 200
            run = ended(client, run["run_id"])
            assert run["status"] == "succeeded" and mark["argument"] in run["output"]
    logs = [launched.output, *(path.read_text() for path in launched.home.rglob("*.log*"))]
    assert any('"event":"tool_call"' in log for log in logs)
    for log in logs:
        for secret in hidden:
            assert secret not in log, [line[:1000] for line in log.splitlines() if secret in line][:3]
    assert not [line for line in launched.output.splitlines() if _of_a_library(line)]


def _of_a_library(line: str) -> bool:
    """Whether a line is one of a library's at DEBUG."""
    if not line.startswith("{"):
        return "DEBUG" in line
    said = json.loads(line)
    return said["level"] == "DEBUG" and not said["logger"].startswith("slipway")
