"""The official SDKs of npm, `@anthropic-ai/sdk` and `openai`, over a Node of PyPI."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.conftest import key_of
from tests.conftest import Slipway, wait_until
from tests.mcp.node import installed, node

pytestmark = pytest.mark.slow  # installs two packages
HERE = Path(__file__).parent
ANTHROPIC, OPENAI = "@anthropic-ai/sdk@1.14.0", "openai@7.59.0"


@pytest.fixture(scope="module")
def told(slipway: Slipway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program of both SDKs has printed."""
    folder = tmp_path_factory.mktemp("twins")
    installed(ANTHROPIC, folder, OPENAI)
    shutil.copy(HERE / "twins.mjs", folder)
    command = [str(node()), "twins.mjs", slipway.url, key_of(slipway)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_answers_tools_and_structure(told: dict[str, Any], client: httpx2.Client, dialect: str) -> None:
    answers = told[dialect]
    assert "391" in answers["whole"] and ("414" if dialect == "anthropic" else "437") in answers["streamed"]
    assert all(
        answers["usage"][name] > 0 for name in answers["usage"] if name in ("output_tokens", "total_tokens")
    )
    reason = "tool_use" if dialect == "anthropic" else "tool_calls"
    assert answers["called"] == [reason, "get_weather", {"city": "Paris"}]
    assert "21 degrees" in answers["result"]
    assert set(answers["structured"]) == {"city"}
    agents = [agent["id"] for agent in client.get("/v1/agents").json()["data"]]
    assert answers["models"][: len(agents)] == agents
    assert "claude-haiku-5-5" in answers["models"][len(agents) :]


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_errors_have_their_classes(told: dict[str, Any], dialect: str) -> None:
    answers = told[dialect]
    classes = {
        name: (answers[name]["class"], answers[name]["status"]) for name in ("missing", "invalid", "stranger")
    }
    assert classes == {
        "missing": ("NotFoundError", 404),
        "invalid": ("BadRequestError", 400),
        "stranger": ("AuthenticationError", 401),
    }
    assert all(answers[name]["request"] for name in classes)


def test_what_is_not_offered_is_told(told: dict[str, Any]) -> None:
    assert told["openai"]["embeddings"]["class"] == "NotFoundError"
    assert "POST /v1/embeddings is not offered here." in told["openai"]["embeddings"]["message"]


def status_of(client: httpx2.Client, run_id: str) -> Any:
    status = client.get(f"/v1/runs/{run_id}").json()["status"]
    return None if status == "running" else status


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_run_of_an_aborted_stream_is_cancelled(
    told: dict[str, Any], client: httpx2.Client, dialect: str
) -> None:
    assert wait_until(partial(status_of, client, told[dialect]["left"]), "its end") == "cancelled"
