"""The examples of docs/client.md run as they stand, in one Python process without our packages; so do the others'."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import httpx2

from tests.conftest import ROOT
from tests.launcher.house import Launcher


def test_the_examples_run(launched: Launcher) -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 9
    program = "\n".join(blocks).replace("http://127.0.0.1:8000", launched.url)
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd="/")
    assert done.returncode == 0, done.stderr
    for said in (
        "admin",
        "key_",
        "30 days",
        "[calculator ",
        "397.8",
        "succeeded",
        "['user', 'assistant']",
        "/inptu",
    ):
        assert said in done.stdout, done.stdout


def test_the_examples_of_other_clients_run(launched: Launcher) -> None:
    """Each block of docs/clients.md is a program; its client's package is installed, ours is not reached."""
    text = (ROOT / "docs" / "clients.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert blocks
    login = {"username": "demo", "password": "demo-password"}
    token = httpx2.post(f"{launched.url}/v1/auth/login", json=login, trust_env=False).json()["access_token"]
    for block in blocks:
        command = [sys.executable, "-I", "-c", block.replace("http://127.0.0.1:8000", launched.url)]
        environment = {**os.environ, "SLIPWAY_KEY": token}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd="/", env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("30 days") >= 2, done.stdout
