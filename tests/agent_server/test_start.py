"""Start of the agent server: folders that it cannot serve, and settings that are wrong, end it with their faults."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.agent_server import house
from tests.agent_server.house import REACT, SINGLE
from tests.conftest import ROOT


def start(folders: list[Path], *options: str, **env: str) -> str:
    """Start a server that must not; return its fault."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_SERVER")}
    command = house.command(9100, folders, *options)
    done = subprocess.run(command, cwd=ROOT, env={**given, **env}, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("description: x\npattern: orchestrator\nagents: [a]\n", "pattern orchestrator asks other agents"),
        (REACT.replace("[look]", "[look, move]"), "tool move changes something"),
        (REACT.replace("[look]", "[count]"), "tool count may not be called again"),
        ("description: x\n", "pattern: Field required"),
    ],
)
def test_folder_that_cannot_be_served_alone_is_named(tmp_path: Path, spec: str, fault: str) -> None:
    folders = house.write(tmp_path, {"probe": spec, "good": SINGLE})
    told = start(folders)
    assert "The agent server cannot start:" in told and fault in told
    assert "good" not in told


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    (one,) = house.write(tmp_path / "a", {"probe": SINGLE})
    (other,) = house.write(tmp_path / "b", {"probe": SINGLE})
    assert "another folder has the same name" in start([one, other])


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    told = start(house.write(tmp_path, {"probe": SINGLE}), "--host", "0.0.0.0")
    assert "AGENT_SERVER_TOKEN" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("MODEL_TIMEOUT", "soon"), ("LOG_FORMAT", "loud"), ("AGENT_SERVER_TOKEN_FILE", "/none")],
)
def test_wrong_setting_is_named_without_its_value(tmp_path: Path, name: str, value: str) -> None:
    told = start(house.write(tmp_path, {"probe": SINGLE}), **{name: value})
    assert name.removesuffix("_FILE") in told and value not in told
