"""Compliance suite of Open Responses: every test passes, or has a reason why it does not apply.

`JUDGES_DIR` is a folder with a checkout of the repository `openresponses/openresponses` (specification 2026-04-24 or
later) of that name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Slipway
from tests.mcp.node import installed

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]
NOT_APPLICABLE = {  # begin of the id: reason
    "websocket-": "responses come by HTTP only",
    "compact-": "a conversation is compacted within its run, by the agent",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the suite, in a copy of the checkout."""
    checkout = Path(os.environ.get("JUDGES_DIR", "")) / "openresponses"
    if "JUDGES_DIR" not in os.environ or not (checkout / "bin" / "compliance-test.ts").is_file():
        pytest.skip("JUDGES_DIR has no checkout of openresponses/openresponses")
    folder = tmp_path_factory.mktemp("suite")
    program = installed("bun@1.4.5", folder / "program").parent
    installed("zod@3.25.76", folder)
    for name in ("bin", "src/lib", "src/generated"):
        shutil.copytree(checkout / name, folder / name)
    [bun, *_] = (program / "@oven").glob("*/bin/bun")
    return [str(bun), "run", str(folder / "bin" / "compliance-test.ts")]


def test_every_test_passes_or_has_a_reason(suite: list[str], slipway: Slipway, key: str) -> None:
    asked = ["--base-url", f"{slipway.url}/v1", "--api-key", key, "--model", "assistant", "--json"]
    ended = subprocess.run([*suite, *asked], capture_output=True, text=True, timeout=200)
    results: list[dict[str, Any]] = json.loads(ended.stdout)["results"]
    outcome = {result["id"]: result["status"] for result in results}
    apply = {name: told for name, told in outcome.items() if not name.startswith(tuple(NOT_APPLICABLE))}
    assert len(apply) >= 8
    assert set(apply.values()) == {"passed"}, [one for one in results if one["id"] in apply]
