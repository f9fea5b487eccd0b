"""Client half of the MCP conformance suite: every scenario passes, or has a reason why it does not apply."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp.node import installed, node

pytestmark = pytest.mark.grown
PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
ROOT = Path(__file__).parents[2]
APPLY = (
    "initialize",
    "tools_call",
    "request-metadata",
    "sse-retry",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
)
NOT_APPLICABLE = {  # begin of the name: reason
    "auth/": "credentials are set by an operator: no OAuth flow begins in a service without a browser",
    "elicitation-": "a server's questions are refused",
    "sep-2322-": "input that a server requires of a client is refused",
    "sep-2640-": "an extension for files of skills, which are not read",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the suite."""
    return [str(node()), str(installed(PACKAGE, tmp_path_factory.mktemp("npm")) / "dist" / "index.js")]


@pytest.mark.parametrize("scenario", APPLY)
def test_a_scenario_passes(suite: list[str], scenario: str, tmp_path: Path) -> None:
    client = f"{sys.executable} -m tests.mcp.conformance_client"
    asked = ["client", "--command", client, "--scenario", scenario, "--output-dir", str(tmp_path)]
    ended = subprocess.run([*suite, *asked], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert "OVERALL: PASSED" in ended.stdout + ended.stderr


def test_every_scenario_passes_or_has_a_reason(suite: list[str]) -> None:
    listed = subprocess.run([*suite, "list", "--client"], capture_output=True, text=True, timeout=60).stdout
    scenarios = set(re.findall(r"^ +- (\S+)", listed, re.MULTILINE))
    assert set(APPLY) < scenarios
    assert [name for name in scenarios - set(APPLY) if not name.startswith(tuple(NOT_APPLICABLE))] == []


def test_a_server_that_requires_input_is_refused(suite: list[str], tmp_path: Path) -> None:
    client = f"{sys.executable} -m tests.mcp.conformance_client"
    scenario = "elicitation-sep1034-client-defaults"
    asked = ["client", "--command", client, "--scenario", scenario, "--output-dir", str(tmp_path)]
    ended = subprocess.run([*suite, *asked], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "elicitation/create is not supported" in ended.stdout + ended.stderr
