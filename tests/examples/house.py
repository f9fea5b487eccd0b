"""Examples as processes, each in an environment of its own, and the scripted model that they ask."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import ROOT, free_port, process, wait_until
from tests.messages_api.asked import Asked, Said, call, calls, says

TOKEN = "the operator's own"
INSTALL_SECONDS = 400


def environment(folder: Path, cache: Path) -> Path:
    """Return the Python of an example's environment, which is made once for each state of its requirements."""
    pins = folder / "requirements.txt"
    home = cache / f"{folder.name}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    python, done = home / "bin" / "python", home / "done"
    if not done.exists():
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=INSTALL_SECONDS
        )
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(pins)]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        done.touch()
    return python


@dataclass
class Example:
    """A running example."""

    url: str
    child: subprocess.Popen[bytes]

    def post(self, token: str = TOKEN, **body: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.post(self.url, json=body, headers=headers, timeout=60, trust_env=False)

    def events(self, **body: Any) -> list[tuple[str, Any]]:
        """Return names and data of all events of one request."""
        lines = [line.partition(": ") for line in self.post(**body).text.splitlines() if line]
        found = [(field, value) for field, _, value in lines if field]
        names, data = ([v for f, v in found if f == field] for field in ("event", "data"))
        return [(name, json.loads(one)) for name, one in zip(names, data, strict=True)]


@contextmanager
def served(folder: Path, python: Path, home: Path, port: int = 0) -> Iterator[Example]:
    """Serve an example, with its checkpoints in `home`."""
    port = port or free_port()
    env = {"PATH": os.environ["PATH"], "SERVICE_TOKEN": TOKEN, "CHECKPOINTS": str(home / "checkpoints.db")}
    command = [str(python), "-m", "uvicorn", "server:app", "--port", str(port), "--app-dir", str(folder)]
    log = home / f"{folder.name}-{port}.log"
    with log.open("ab") as out, process(command, env, stdout=out, stderr=out) as child:
        url = f"http://127.0.0.1:{port}/"
        wait_until(
            lambda: child.poll() is not None or httpx2.get(url + "health").status_code == 200, folder.name, 60
        )
        assert child.poll() is None, log.read_text()[-3000:]
        yield Example(url, child)


def refunds(asked: Asked) -> Said:
    """Look the order up, ask for its refund, then say what came of it."""
    match asked.results:
        case []:
            return calls(call("look_up_order", {"number": "1001"}, 1))
        case [_]:
            return calls(call("refund", {"number": "1001", "eur": 39}, 2))
        case [*_, last]:
            return says(f"Done: {last}")


def question(base_url: str, run_id: str = "run_1", token: str = "run token", **fields: Any) -> dict[str, Any]:
    """Build the body of a question."""
    messages = [{"role": "user", "content": "Refund order 1001, please."}]
    given = {"input": messages[0]["content"], "messages": messages, "run_id": run_id, "resume": None}
    return {**given, "run_token": token, "base_url": base_url, **fields}


def decided(waiting: dict[str, Any], decision: str) -> dict[str, Any]:
    """Build `resume`, with one decision for all that was asked."""
    decisions = [{**one, "decision": decision, "comment": None} for one in waiting["approvals"]]
    return {"state": waiting["state"], "decisions": decisions}


EXAMPLES = ROOT / "examples"
