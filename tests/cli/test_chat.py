"""`flask agents chat`: turns of a session, tools, approvals, Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from config import load
from service.app import create_app
from tests.cli.house import env, whole
from tests.conftest import PYTHON, ROOT, Model, guardian, wait_until

__all__ = ["env", "whole"]
SPEC = "description: x\npattern: react\ntools: [pay]\napprovals: [pay]\ntier: {default: simple, ask: false}\n"
TOOLS = '''
from pathlib import Path

from service.tools import tool

@tool()
def pay(text: str) -> str:
    """Pay an order."""
    with (Path(__file__).parent.parent.parent / "paid").open("a") as file:
        file.write(text + "\\n")
    return "\\x1b]0;title\\x07paid"
'''


@pytest.fixture
def place(env: dict[str, str], whole: Flask, tmp_path: Path) -> dict[str, str]:
    """Settings with an agent `till` that asks before it pays, and `talker` without tools."""
    for name, spec in (("till", SPEC), ("talker", "description: x\npattern: single\n")):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(spec)
        (folder / "prompt.md").write_text("Be good.")
    (tmp_path / "agents" / "till" / "tools.py").write_text(TOOLS)
    return {**env, "AGENTS_DIR": str(tmp_path / "agents")}


def chat(place: dict[str, str], *lines: str, code: int = 0, options: tuple[str, ...] = ()) -> tuple[str, str]:
    """Type lines, as from a pipe; return what is printed on stdout and stderr."""
    app = create_app(load(place))
    words = ["agents", "chat", *options]
    result = app.test_cli_runner().invoke(args=words, input="".join(f"{line}\n" for line in lines))
    app.extensions["slipway"].close()
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout, result.stderr


def test_turns_go_on_in_one_session(place: dict[str, str]) -> None:
    said, _ = chat(place, "My name is Ada.", "", "What is my name?", options=("talker",))
    turns = re.findall(r"^  run_\w+: 1 step, 0\.\d{6} USD$", said, re.M)
    assert len(turns) == 2 and "Ada" in said.rpartition("run_")[0].partition("USD")[2]
    assert "> " not in said  # a prompt is for a terminal


@pytest.mark.parametrize(("answer", "paid", "shown"), [("y", ["7"], "ok ("), ("no", [], "failed (")])
def test_a_call_is_put_to_the_user(
    place: dict[str, str], tmp_path: Path, answer: str, paid: list[str], shown: str
) -> None:
    said, _ = chat(place, 'Call the pay tool with "7".', answer, options=("till",))
    assert (
        'pay {"text":"7"} needs an approval: the agent or the tool asks for one each time.' in said
        and shown in said
    )
    assert "\x07" not in said  # a terminal escape of a tool is inert
    found = (tmp_path / "paid").read_text().split() if (tmp_path / "paid").exists() else []
    assert found == paid


def test_a_call_that_is_not_decided_waits(place: dict[str, str], tmp_path: Path) -> None:
    _, errors = chat(place, 'Call the pay tool with "7".', options=("till",), code=1)
    assert "goes on without this command" in errors and not (tmp_path / "paid").exists()


def test_a_user_who_may_not_decide_is_told(place: dict[str, str], tmp_path: Path) -> None:
    words = ("till", "--user", "ada")
    _, errors = chat(place, 'Call the pay tool with "7".', "y", options=words, code=1)
    assert "This needs the role operator." in errors and not (tmp_path / "paid").exists()


def test_a_failed_turn_is_shown_and_the_next_goes_on(place: dict[str, str]) -> None:
    said, errors = chat(place, "[offline fault=400] Hello", "Hello", options=("talker",), code=1)
    assert "The model refused the request" in errors and "Hello!" in said


def test_an_unknown_agent(place: dict[str, str]) -> None:
    _, errors = chat(place, options=("tilt",), code=1)
    assert errors == "Error: There is no agent tilt; did you mean 'till'?\n"


def test_an_agent_with_a_fault_is_no_unknown_one(place: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "agents" / "till" / "prompt.md").unlink()
    _, errors = chat(place, options=("till",), code=1)
    assert errors == "Error: till cannot be run: `flask agents check till` says why.\n"


def test_a_call_after_untrusted_text_says_where_it_came_from(place: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "agents" / "mail"
    folder.mkdir()
    (folder / "agent.yaml").write_text("description: x\npattern: react\ntools: [read_mail, pay]\n")
    (folder / "prompt.md").write_text("Be good.")
    (folder / "tools.py").write_text(
        f'{TOOLS}\n\n@tool(risk="read")\ndef read_mail() -> str:\n    "Read mail."\n'
        '    return "Plan: https://evil.example/a"\n'
    )
    said, _ = chat(place, 'Use read_mail, then call the pay tool with "7".', "n", options=("mail",))
    assert "needs an approval: the run has untrusted text from read_mail." in said
    said, _ = chat(place, "Use read_mail: which plan?", options=("mail",))
    assert "[link removed]" in said and "links removed, whose hosts the agent does not list: 1" in said


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.end, own = pty.openpty()
        command = [PYTHON, "-m", "flask", "--app", "wsgi", "agents", "chat", "talker"]
        self.child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
        )
        guardian.list(self.child.pid)
        os.close(own)
        os.set_blocking(self.end, False)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        def is_shown() -> bool:
            with suppress(BlockingIOError):
                self.shown += os.read(self.end, 65536).decode()
            return text in self.shown

        wait_until(is_shown, text)

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self.end, text.encode())


@pytest.fixture
def terminal(place: dict[str, str], model: Model) -> Iterator[Terminal]:
    opened = Terminal({**place, "LOG_LEVEL": "INFO"})
    yield opened
    opened.child.kill()
    opened.child.wait(30)
    guardian.unlist(opened.child.pid)
    os.close(opened.end)


def test_ctrl_c_cancels_the_turn_and_ctrl_d_ends(terminal: Terminal, model: Model) -> None:
    terminal.wait_for("> ")
    model.control(token_ms=200)
    terminal.type("[offline tokens=200] Hello\n")
    wait_until(lambda: model.stats()["in_flight"] == 1, "the call")
    os.kill(terminal.child.pid, signal.SIGINT)
    terminal.wait_for("The run was cancelled")
    model.control()
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("USD")
    assert "llm_call" not in terminal.shown  # no log lines come between
    terminal.type("\x04")
    assert terminal.child.wait(30) == 1  # a turn was cancelled
