"""Programs of evals: there while they are asked, gone afterwards, also after `kill -9`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from service.errors import Unavailable
from service.evals import programs
from service.evals.programs import mail_and_calendar, offline_model
from tests.conftest import PYTHON, ROOT, wait_until


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_programs_answer_and_end(tmp_path: Path) -> None:
    with offline_model() as model, mail_and_calendar(tmp_path) as servers:
        urls = [f"{model}/health", *(url.replace("/mcp", "/health") for url in servers.values())]
        assert set(servers) == {"MAIL_URL", "CALENDAR_URL"} and all(map(answers, urls))
    assert not any(map(answers, urls))


def test_program_ends_with_its_evals() -> None:
    code = (
        "from service.evals.programs import *\nwith offline_model() as url: print(url, flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    owner = subprocess.Popen([PYTHON, "-c", code], cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
    url = f"{owner.stdout.readline().strip()}/health"
    assert answers(url)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)
    wait_until(lambda: not answers(url), "the end of the offline model", 20)
    for pipe in (owner.stdin, owner.stdout):
        pipe.close()


def test_program_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "OURS", tmp_path)  # there is no such module there
    with pytest.raises(Unavailable, match="does not start"), offline_model():
        pass
