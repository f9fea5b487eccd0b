"""The command `slipway` in a terminal: progress, decisions at the prompt, Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from slipway_client import Slipway

from tests import conftest as parts
from tests.client.test_cli import ESCAPES
from tests.client.wire import event, events, last, scripted, text
from tests.conftest import ROOT, process

WAIT = 60.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself sends


@dataclass
class Terminal:
    """One command in a terminal of its own."""

    child: subprocess.Popen[bytes]
    master: int
    seen: str = field(default="")

    def until(self, wanted: str) -> str:
        """Read on until that text came; return what came so far."""
        end = time.monotonic() + WAIT
        while wanted not in self.plain:
            if time.monotonic() > end or not self._more():
                pytest.fail(f"no {wanted!r} in {self.plain!r}")
        return self.plain

    @property
    def plain(self) -> str:
        return CONTROL.sub("", self.seen)

    def type(self, text_: str) -> None:
        os.write(self.master, text_.encode())

    def end(self) -> int:
        """Read to the end; return the exit code."""
        while self._more():
            pass
        return self.child.wait(WAIT)

    def _more(self) -> bool:
        if not select.select([self.master], [], [], WAIT)[0]:
            return False
        with suppress(OSError):  # the other end is closed
            if data := os.read(self.master, 65_536):
                self.seen += data.decode(errors="replace")
                return True
        return False


@contextmanager
def typed(url: str, key: str, *words: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    env = {
        "PYTHONPATH": str(ROOT / "client"),
        "SLIPWAY_BASE_URL": url,
        "SLIPWAY_API_KEY": key,
        "TERM": "xterm",
    }
    command = [
        sys.executable,
        "-c",
        "import os, pty; os.login_tty(0); from slipway_client.cli import main; main()",
    ]
    options = {"stdin": slave, "stdout": slave, "stderr": slave}
    try:
        with process([*command, *words], env, **options) as child:
            os.close(slave)
            yield Terminal(child, master)
    finally:
        os.close(master)


@pytest.fixture(scope="module")
def key(server: parts.Slipway) -> str:
    with server.client() as admin:
        return str(admin.post("/v1/auth/keys", json={"name": "terminal"}).json()["key"])


def test_ctrl_c_cancels_the_run(server: parts.Slipway, key: str, client: Slipway, model: parts.Model) -> None:
    model.control(token_ms=200)
    about = secrets.token_hex(6)
    with typed(server.url, key, "ask", "assistant", f"[offline tokens=300] {about}") as terminal:
        terminal.until("I am")
        terminal.type("\x03")
        assert "cancelled" in terminal.until("USD")
        assert terminal.end() == 130
    [run] = [item for item in client.runs.list(agent="assistant") if about in (item.input or "")]
    assert run.status == "cancelled"


@pytest.mark.parametrize(("answer", "outcome"), [("y", "succeeded"), ("n", "succeeded"), ("later", "")])
def test_a_decision_is_made_at_the_prompt(
    server: parts.Slipway, key: str, client: Slipway, answer: str, outcome: str
) -> None:
    line = secrets.token_hex(6)
    with typed(server.url, key, "ask", "clerk", f'Call the write_line tool with "{line}".') as terminal:
        assert line in terminal.until("Approve? [y/n")
        terminal.type(f"{answer}\n")
        assert terminal.end() == (0 if outcome else 3)
        run_id = re.findall(r"run_\w+", terminal.plain)[-1]
    lines = Path(server.env["SLIPWAY_HOME"]) / "lines"
    assert (line in (lines.read_text() if lines.exists() else "")) == (answer == "y")
    assert client.runs.get(run_id).status == (outcome or "waiting_approval")


def test_text_of_others_cannot_steer_a_terminal() -> None:
    parts_ = [
        event(1, "step.started", step=1, name=ESCAPES, agent=ESCAPES, branch="1"),
        event(2, "tool.called", call_id="c", name=ESCAPES, arguments={"a": ESCAPES}),
        text(3, ESCAPES),
        event(4, "run.resumed", from_seq=3),  # after a decision: nothing is void
        event(5, "run.resumed", from_seq=0),
        text(6, ESCAPES),
        last(7, output=ESCAPES),
    ]
    with scripted(events(*parts_)) as server, typed(server.url, "slp_1", "ask", "a", "?") as terminal:
        assert terminal.end() == 0
    assert "[bold red]x[/bold red] :smile:" in terminal.plain and terminal.plain.count("begins again") == 1
    assert {letter for letter in terminal.plain if not letter.isprintable()} <= {"\r", "\n"}
    assert "\x1b[2J" not in terminal.seen and "\x1b]" not in terminal.seen
