"""Smoke test of a deploy, against a real server: its lines, and what it says of a fault."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scripts.smoke import Smoke
from tests.conftest import ROOT, Slipway, free_port


def smoke(url: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "scripts.smoke", url],  # without the packages of the environment
        check=False,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SMOKE_KEY": "", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def key(slipway: Slipway) -> str:
    with slipway.client() as client:
        return str(client.post("/v1/auth/keys", json={"name": "smoke"}).json()["key"])


def test_smoke_reports_each_step_and_stops_at_what_is_not_ready(slipway: Slipway, key: str) -> None:
    """This server has no task worker, which a deploy must not overlook; tests/image has one with all parts."""
    done = smoke(slipway.url, SMOKE_KEY=key)
    assert done.returncode == 1 and done.stdout.startswith("smoke: health: version "), done.stdout
    assert "/ready says degraded" in done.stderr and '"worker"' in done.stderr, done.stderr


def test_smoke_asks_by_invoke_and_stream(slipway: Slipway, key: str) -> None:
    smoke = Smoke(slipway.url, key, "assistant")
    assert smoke.invoke().startswith("run run_")
    assert smoke.stream().endswith("pieces of text")


@pytest.mark.parametrize("fault", ["key", "nobody", "address", "no key"])
def test_smoke_says_what_failed_and_never_the_key(slipway: Slipway, fault: str) -> None:
    urls = {"nobody": f"http://127.0.0.1:{free_port()}", "address": "127.0.0.1:8000"}
    key = "" if fault == "no key" else "slp_not_a_key_of_anybody"
    done = smoke(urls.get(fault, slipway.url), SMOKE_KEY=key)
    assert done.returncode == 1 and done.stderr.startswith("smoke: ")
    assert "Traceback" not in done.stderr and "slp_not" not in done.stdout + done.stderr
