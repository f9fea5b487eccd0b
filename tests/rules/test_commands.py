"""Every command that a page shows is there: its name, its options and how many words it takes.

Those of `flask` that need no more than a service are also typed, in the order of the pages.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from flask import Flask
from flask.cli import FlaskGroup

from config import load
from service.app import create_app
from tests.conftest import PYTHON, ROOT
from tests.launcher.house import Launcher
from tests.made import app_in, close
from tests.rules.shown import Command, commands, of

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
VARIABLES = {"ARGS", "PORT"}  # of make
CONTAINER = ("docker",)  # it has our programs in its PATH
# What a page leaves to its reader: names in capitals, and what an ellipsis stands for.
PLACEHOLDER = re.compile(r"\[?[A-Z]{2,}\]?…?|.*…")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = app_in(tmp_path_factory.mktemp("commands"))
    yield app
    close(app)


@pytest.fixture
def flask(made: Flask) -> Iterator[click.Context]:
    """The context of `flask` as it is with our application, which is pushed in it."""
    group = FlaskGroup(create_app=lambda: made)
    with group.make_context("flask", [], resilient_parsing=True) as context:
        yield context


def test_there_are_commands_to_look_at() -> None:
    assert len(of("flask")) > 20 and len(of("make")) > 5 and len(of("celery", "alembic", "python")) > 3


@pytest.mark.parametrize("shown", of("flask"), ids=str)
def test_a_command_of_flask_and_its_options(flask: click.Context, shown: Command) -> None:
    command, context, left = found(flask, list(shown.words[1:]))
    if isinstance(command, click.Group):
        assert left in ([], ["--help"]), f"{shown}: there is no {left[0]}"
        return
    values, extra, _ = command.make_parser(context).parse_args(left)
    assert extra == [], f"{shown}: too many words"
    for param in command.params:
        value = values.get(str(param.name))
        if param.required and shown.in_a_block:
            assert value not in (None, ()), f"{shown}: {param.name} is missing"
        if isinstance(param.type, click.Choice) and isinstance(value, str):
            param.type.convert(value, param, context)


def test_the_table_of_the_operator_has_a_row_for_each_command(made: Flask) -> None:
    listed = re.findall(r"^\| `flask (\w+ [\w-]+)[^`]*` \|", (ROOT / "docs/operator.md").read_text(), re.M)
    there = [
        f"{name} {command}"
        for name, group in made.cli.commands.items()
        for command in getattr(group, "commands", {})
    ]
    assert sorted(listed) == sorted(there)


def found(context: click.Context, words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that is meant, its context, and the words after its name."""
    command = context.command
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"there is no {words[0]}"
        command, words = inner, words[1:]
    return command, click.Context(command, parent=context), words


@pytest.mark.parametrize("shown", of("make"), ids=str)
def test_a_target_of_make(shown: Command) -> None:
    for word in shown.words[1:]:
        name, equals, _ = word.partition("=")
        assert name in (VARIABLES if equals else TARGETS), f"{shown}: make knows no {name}"


@pytest.mark.parametrize("shown", of("python", "celery", "alembic", "gunicorn"), ids=str)
def test_a_program_and_its_options(shown: Command) -> None:
    words = list(shown.words[1:])
    if shown.program == "python" and words[:1] != ["-m"]:
        return  # lines of Python
    module = words[1] if shown.program == "python" else shown.program
    said = help_of(module) + "".join(
        help_of(module, word) for word in words if word in ("worker", "beat", "revision")
    )
    for word in words[2:] if shown.program == "python" else words:
        option = word.partition("=")[0]
        if option.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", said), (
                f"{shown}: there is no {option}"
            )


@cache
def help_of(*words: str) -> str:
    command = [PYTHON, "-m", *words, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_in_blocks_have_a_path() -> None:
    """Programs are not in the PATH: a clone has them in `.venv/bin`, a container knows them by name."""
    wrong = [
        str(shown)
        for shown in commands()
        if shown.in_a_block and "/" not in shown.words[0] and shown.program != "make"
        if shown.prefix[:1] != CONTAINER
    ]
    assert wrong == []


def test_commands_that_need_only_a_service_succeed(
    launched: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "export.csv").write_text("date,model,input_tokens,output_tokens,cost\n")
    (tmp_path / "rails.yaml").write_text("output:\n  personal_data: mask\n")
    typed = [
        list(shown.words[1:])
        for shown in of("flask")
        if shown.in_a_block and not shown.prefix and not any(map(PLACEHOLDER.fullmatch, shown.words))
    ]
    typed.sort(key=lambda words: words[:2] != ["workspaces", "add"])  # which others are about
    assert len(typed) > 4
    port = re.search(r"offline model \(port (\d+)\)", launched.output)
    assert port is not None
    for server, number in re.findall(r"(mail|calendar) \(port (\d+)\)", launched.output):
        monkeypatch.setenv(f"{server.upper()}_URL", f"http://127.0.0.1:{number}/mcp")
    app = create_app(load(launched.environ(ANTHROPIC_BASE_URL=f"http://127.0.0.1:{port[1]}")))
    for words in typed:
        words = [
            str(tmp_path / word) if word in ("export.csv", "checkpoints.jsonl", "rails.yaml") else word
            for word in words
        ]
        done = app.test_cli_runner().invoke(args=words)
        assert done.exit_code == 0, f"{words}\n{done.output}"
        if words == ["audit", "checkpoint"]:
            (tmp_path / "checkpoints.jsonl").write_text(done.stdout)
    close(app)
