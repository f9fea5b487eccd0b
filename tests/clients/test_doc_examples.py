"""Examples of the page `/docs`, run as they stand: each door that the service has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.conftest import key_of
from tests.conftest import ROOT, Slipway
from tests.mcp.node import node

DOORS = Path("service/web/assets/doors.js")
READ = (
    "import { DOORS, at } from %s; const shown = ({ language, text }) => [language, at(%s, text)];"
    "console.log(JSON.stringify(DOORS.map((door) => ({ ...door, examples: door.examples.map(shown) }))));"
)


@pytest.fixture(scope="module")
def doors(slipway: Slipway) -> list[dict[str, Any]]:
    """The doors as the page shows them."""
    program = READ % (json.dumps((ROOT / DOORS).as_uri()), json.dumps(slipway.url))
    command = [
        str(node()),
        "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON",
        "--input-type=module",
        "-e",
        program,
    ]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found: list[dict[str, Any]] = json.loads(printed)
    return found


def test_examples_run(slipway: Slipway, client: httpx2.Client, doors: list[dict[str, Any]]) -> None:
    described = client.get("/openapi.json").json()["paths"]
    models = {model["id"] for model in client.get("/v1/models").json()["data"]}
    environment = {**os.environ, "SLIPWAY_KEY": key_of(slipway), "PYTHONPATH": str(ROOT / "client")}
    shown = 0
    for door in doors:
        if door["path"] not in described or (
            door["name"] == "Models themselves" and "claude-haiku-5-5" not in models
        ):
            continue  # of a part that this service does not have
        for language, text in door["examples"]:
            command = ["bash", "-c", text] if language.startswith("Shell") else [sys.executable, "-c", text]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, env=environment, cwd="/"
            )
            assert done.returncode == 0, (door["name"], language, done.stderr)
            assert "refund" in done.stdout, (door["name"], language, done.stdout)
            shown += 1
    assert shown >= 7
