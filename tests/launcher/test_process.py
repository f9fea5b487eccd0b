"""Programs run in a fork of the launcher: as if each had been started by itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from launcher.process import Fork, fork

TELL = """
import json, os, sys
descriptors = os.listdir("/proc/self/fd")
told = [sys.argv[1:], dict(os.environ), os.getsid(0) == os.getpid(), os.read(0, 1).decode(), descriptors]
with open(os.environ["OUT"], "w") as out:
    json.dump(told, out)
"""


def started(folder: Path, text: str, *arguments: str, keep: tuple[int, ...] = (), **env: str) -> Fork:
    (folder / "small_program.py").write_text(text)
    command = (sys.executable, "-m", "small_program", *arguments)
    return fork(command, env, keep, lambda: None)


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    "text,code",
    [
        ("", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('it cannot start')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_fork_ends_with_the_code_of_its_program(tmp_path: Path, text: str, code: int) -> None:
    child = started(tmp_path, text)
    assert child.wait() == code
    assert child.poll() == code
    child.terminate()  # long gone


def test_a_fork_is_as_a_program_of_its_own(tmp_path: Path) -> None:
    with open(os.devnull) as kept, open(os.devnull):
        out, number = tmp_path / "out", kept.fileno()
        child = started(tmp_path, TELL, "--port", "1", keep=(number,), OUT=str(out))
        assert child.wait() == 0
        argv, environ, leads, stdin, descriptors = json.loads(out.read_text())
    assert (argv, environ, leads, stdin) == (["--port", "1"], {"OUT": str(out)}, True, "")
    assert len(descriptors) == 5 and {"0", "1", "2", str(number)} <= set(descriptors)  # one is the list's own


def test_a_fork_that_runs_has_no_code_and_is_terminated(tmp_path: Path) -> None:
    child = started(tmp_path, "import time; time.sleep(60)")
    assert child.poll() is None
    child.terminate()
    assert child.wait() == -signal.SIGTERM
