"""The examples of client/README.md run as they stand: those in Python in one process, the commands in one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import slipway_client
from slipway_client import errors
from slipway_client.cli.commands import parser

from tests import conftest as parts
from tests.conftest import ROOT

README = (ROOT / "client" / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if name == kind]


def done(command: list[str], server: parts.Slipway, home: Path, stdin: str = "") -> str:
    env = {"PYTHONPATH": str(ROOT / "client"), "PATH": os.environ["PATH"], "SLIPWAY_BASE_URL": server.url}
    env["XDG_CONFIG_HOME"] = str(home)
    ended = subprocess.run(
        command, env=env, cwd=home, input=stdin, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_examples_run(server: parts.Slipway, tmp_path: Path) -> None:
    program = "\n".join(blocks("python")).replace("http://localhost:8000", server.url)
    said = done([sys.executable, "-c", program], server, tmp_path)
    wanted = (
        "30 days",
        "397.8",
        "succeeded",
        "run.completed",
        "['user', 'assistant']",
        "Say hello",
        "not_found",
    )
    for words in wanted:
        assert words in said, said


def test_the_commands_run(server: parts.Slipway, tmp_path: Path) -> None:
    _, typed = blocks("sh")
    function = f'slipway() {{ {sys.executable} -m slipway_client.cli "$@"; }}\n'
    said = done(["bash", "-euc", function + typed], server, tmp_path, stdin="demo-password\n")
    assert "30 days" in said and "support\t" in said


def test_every_error_and_every_command_is_named() -> None:
    named = set(re.findall(r"\b[A-Z]\w+", README))
    classes = {name for name in slipway_client.__all__ if isinstance(getattr(errors, name, None), type)}
    assert classes <= named
    commands = re.findall(r"^\| `slipway (\w+)", README, re.M)
    usage = parser().format_help()
    assert {"login", *commands} == set(re.findall(r"^    (\w+)(?: |$)", usage, re.M)) - {"logout"}
