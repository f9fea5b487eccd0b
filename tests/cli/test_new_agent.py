"""`flask agents new`: a folder of each pattern, which can be run at once."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from config import load
from service.agents.new_folder import patterns
from service.agents.patterns import PATTERNS
from service.app import create_app
from tests.cli.house import env, whole
from tests.conftest import PYTHON, ROOT, free_port, process, wait_until

__all__ = ["env", "whole"]
Flask_ = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The agents of a clone."""
    shutil.copy(ROOT / "mcp.yaml", tmp_path)
    return shutil.copytree(ROOT / "agents", tmp_path / "agents")


@pytest.fixture
def flask(env: dict[str, str], whole: Flask, folder: Path) -> Iterator[Flask_]:
    """Run a command over agents of this test, as a new process does; over the database of `whole`."""

    def run(*words: str, code: int = 0, stdin: str | None = None, **settings: str) -> Result:
        app = create_app(load({**env, "AGENTS_DIR": str(folder), **settings}))
        result = app.test_cli_runner().invoke(args=list(words), input=stdin)
        app.extensions["slipway"].close()
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    yield run


def test_every_pattern_has_a_template() -> None:
    assert patterns() == sorted(PATTERNS)


def test_a_folder_without_agents_is_made(flask: Flask_, folder: Path) -> None:
    shutil.rmtree(folder)
    flask("agents", "new", "desk", "--pattern", "single")
    assert os.listdir(folder) == ["desk"]


@pytest.mark.parametrize("pattern", [name for name in patterns() if name != "remote"])
def test_a_new_agent_has_no_faults_and_passes_its_evals(flask: Flask_, folder: Path, pattern: str) -> None:
    made = flask("agents", "new", "desk", "--pattern", pattern)
    first, *told = made.stdout.splitlines()
    assert first.startswith(f"Made {folder}/desk (pattern {pattern}): agent.")
    assert told[0] == "Next:" and any("agents chat desk" in line for line in told)
    assert flask("agents", "check", "desk").stdout == "desk can be run.\n"
    assert {"agent.yaml", "prompt.md", "evals.yaml"} <= {path.name for path in (folder / "desk").iterdir()}
    passed = flask("agents", "eval", "desk").stdout.splitlines()
    assert passed[-1] == f"{len(passed) - 1} of {len(passed) - 1} passed." and len(passed) > 1


def test_a_new_remote_agent_passes_its_evals_before_its_service(flask: Flask_, folder: Path) -> None:
    flask("agents", "new", "desk", "--pattern", "remote")
    desk, port = folder / "desk", free_port()
    checked = flask("agents", "check", "desk", REMOTE_HOSTS="127.0.0.1:9100")
    assert checked.stdout == "desk can be run.\n"
    spec = (desk / "agent.yaml").read_text()
    (desk / "agent.yaml").write_text(spec.replace("9100", str(port)))
    command = [PYTHON, str(desk / "service.py")]
    with process(command, {"PORT": str(port)}):
        wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None, "the service")
        passed = flask("agents", "eval", "desk", REMOTE_HOSTS=f"127.0.0.1:{port}").stdout
    assert passed.splitlines()[-1] == "1 of 1 passed."


def test_the_pattern_is_asked_for(flask: Flask_, folder: Path) -> None:
    flask("agents", "new", "desk", stdin="router\n")
    flask("agents", "new", "other", stdin="\n")
    found = [(folder / name / "agent.yaml").read_text() for name in ("desk", "other")]
    assert "pattern: router" in found[0] and "pattern: react" in found[1]
    assert "is not one of" in flask("agents", "new", "x", "--pattern", "rooter", code=2).stderr


@pytest.mark.parametrize("name", ["", "Desk", "1desk", "a/b", "..", ".desk", "désk", "x" * 65])
def test_a_bad_name_is_refused(flask: Flask_, folder: Path, name: str) -> None:
    refused = flask("agents", "new", name, "--pattern", "single", code=1)
    assert "is no name of an agent" in refused.stderr and sorted(os.listdir(folder)) == sorted(
        os.listdir(ROOT / "agents")
    )


def test_a_folder_that_is_there_stays_as_it_is(flask: Flask_, folder: Path) -> None:
    (folder / "desk").mkdir()
    refused = flask("agents", "new", "desk", "--pattern", "single", code=1)
    assert refused.stderr == f"Error: {folder}/desk is there already: choose another name.\n"
    assert list((folder / "desk").iterdir()) == []


def test_check_of_one_agent(flask: Flask_, folder: Path) -> None:
    for name in ("desk", "other"):
        flask("agents", "new", name, "--pattern", "single")
    (folder / "other" / "prompt.md").unlink()
    assert flask("agents", "check", "desk").stdout == "desk can be run.\n"
    shown = flask("agents", "check", "other", code=1).stdout.splitlines()
    assert shown[0].startswith(f"{folder}/other/prompt.md: is missing") and shown[1] == "other cannot be run."
    assert "There is no agent des; did you mean 'desk'?" in flask("agents", "check", "des", code=1).stderr
