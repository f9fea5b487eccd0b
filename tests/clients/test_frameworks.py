"""Examples of docs/clients.md for programs that are built on the official SDKs; of two of them the settings only."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from tests.clients.conftest import key_of
from tests.conftest import ROOT, Slipway
from tests.examples import house

PAGE = (ROOT / "docs" / "clients.md").read_text()


def example(heading: str, language: str) -> str:
    """The block of a section."""
    (found,) = re.findall(rf"^## {heading}\n.*?^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


def check_base(client: httpx2.Client, base: str) -> None:
    """Both paths that such a program asks for below its base are routes."""
    path = urlsplit(base).path
    assert client.get(f"{path}/models").json()["data"]
    assert client.post(f"{path}/chat/completions", json={}).status_code == 400


@pytest.mark.examples
@pytest.mark.timeout(600)  # installs LangChain
def test_langchain(slipway: Slipway, request: pytest.FixtureRequest) -> None:
    cache = request.config.cache.mkdir("examples")  # type: ignore[union-attr]
    python = house.environment(Path(__file__).parent / "langchain", cache)
    program = example("LangChain", "python").replace("http://127.0.0.1:8000", slipway.url)
    environment = {**os.environ, "SLIPWAY_KEY": key_of(slipway)}
    done = subprocess.run(
        [str(python), "-I", "-c", program],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("30 days") >= 2, done.stdout


def test_settings_of_librechat(client: httpx2.Client) -> None:
    (endpoint,) = yaml.safe_load(example("LibreChat", "yaml"))["endpoints"]["custom"]
    check_base(client, endpoint["baseURL"])
    agents = [agent["id"] for agent in client.get("/v1/agents").json()["data"]]
    assert set(endpoint["models"]["default"]) <= set(agents) and endpoint["models"]["fetch"]
    assert endpoint["apiKey"] == "${SLIPWAY_KEY}"


def test_settings_of_open_webui(client: httpx2.Client) -> None:
    lines = example("Open WebUI", "shell").splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    check_base(client, settings["OPENAI_API_BASE_URL"])
    assert settings["OPENAI_API_KEY"].startswith("slp_") and len(settings) == len(lines)
