"""The examples of the pages for clients run as they stand; without our packages, but for the Python client's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT
from tests.launcher.house import Launcher


def printed(
    blocks: list[str],
    launched: Launcher,
    path: Path | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """Run the blocks as one program, with a folder of packages if any; return what it prints."""
    program = "\n".join(blocks).replace("127.0.0.1:8000", launched.url.removeprefix("http://"))
    if path is not None:
        program = f"import sys; sys.path.insert(0, {str(path)!r})\n{program}"
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run(launched: Launcher) -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    with_client, *blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 9 and not any("slipway_client" in block for block in blocks)
    said = printed([with_client], launched, ROOT / "client")
    assert "30 days" in said and "397.8" in said and "succeeded" in said and "/effort" in said
    output = printed(blocks, launched)
    for said in (
        "admin",
        "key_",
        "30 days",
        "[calculator ",
        "397.8",
        "succeeded",
        "sch_",
        "None [] []",
        "['user', 'assistant']",
        "/inptu",
    ):
        assert said in output, output


def test_the_examples_of_other_clients_run(launched: Launcher) -> None:
    """Each block of these pages is a program; its client's package is installed, ours is not reached."""
    pages = [(ROOT / "docs" / name).read_text() for name in ("clients.md", "websocket.md")]
    found = re.findall(r"^```python\n(.*?)^```$", "\n".join(pages), re.M | re.S)
    blocks = [one for one in found if "langchain" not in one]
    assert len(blocks) >= 3
    login = {"username": "demo", "password": "demo-password"}
    token = httpx2.post(f"{launched.url}/v1/auth/login", json=login, trust_env=False).json()["access_token"]
    for block in blocks:
        said = printed([block], launched, environment={**os.environ, "SLIPWAY_KEY": token})
        assert said.count("30 days") >= 2, said


@pytest.mark.parametrize(
    ("name", "said"), [("litellm", "Say hello"), ("langgraph-server", "30 days"), ("fastapi", "30 days")]
)
def test_the_examples_for_those_from_elsewhere_run(launched: Launcher, name: str, said: str) -> None:
    page = (ROOT / "docs" / f"from-{name}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    login = {"username": "demo", "password": "demo-password"}
    token = httpx2.post(f"{launched.url}/v1/auth/login", json=login, trust_env=False).json()["access_token"]
    assert said in printed(blocks, launched, environment={**os.environ, "SLIPWAY_KEY": token})
