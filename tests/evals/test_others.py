"""promptfoo and Inspect against the door for OpenAI's SDKs, as docs/evals.md has them; where they are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT, Slipway

pytestmark = [pytest.mark.examples, pytest.mark.timeout(300)]
SECTION = (ROOT / "docs" / "evals.md").read_text().partition("## promptfoo and Inspect")[2]
PORT = "http://127.0.0.1:8000"


def shown(kind: str, number: int = 0) -> str:
    return re.findall(rf"^```{kind}\n(.*?)^```$", SECTION, re.M | re.S)[number]


def program(name: str) -> str:
    """Return the path of a program; `PROMPTFOO` or `INSPECT` names one that is not in the `PATH`."""
    found = os.environ.get(name.upper()) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def environ(slipway: Slipway, client: httpx2.Client, tmp_path: Path) -> dict[str, str]:
    key = client.post("/v1/auth/keys", json={"name": tmp_path.name}).json()["key"]
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "SLIPWAY_API_KEY": key,
        "SLIPWAY_BASE_URL": f"{slipway.url}/v1",
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    }


def run(command: list[str], folder: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_promptfoo_asks_an_agent(slipway: Slipway, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "promptfooconfig.yaml").write_text(shown("yaml").replace(PORT, slipway.url))
    command = [program("promptfoo"), *shown("sh").split()[1:], "--output", "out.json"]
    run([word.replace("10", "2") if word == "10" else word for word in command], tmp_path, environ)
    stats = json.loads((tmp_path / "out.json").read_text())["results"]["stats"]
    assert (stats["successes"], stats["failures"], stats["errors"]) == (2, 0, 0)


def test_inspect_asks_an_agent(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "refunds.py").write_text(shown("python"))
    words = shown("sh", 1).splitlines()[1].split()
    command = [
        program("inspect"),
        *words[1:-1],
        "2",
        "--log-format",
        "json",
        "--log-dir",
        "logs",
        "--display",
        "plain",
    ]
    run(command, tmp_path, environ)
    [log] = (tmp_path / "logs").glob("*.json")
    content = json.loads(log.read_text())
    [score] = content["results"]["scores"]
    assert (content["status"], score["metrics"]["accuracy"]["value"]) == ("success", 1)
