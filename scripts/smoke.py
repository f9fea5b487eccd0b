"""Ask a running Slipway one question by each door: `SMOKE_KEY=slp_… python3 -m scripts.smoke https://slipway.example.com`.

Uses the standard library only, so a deploy needs no installation. SMOKE_AGENT names another agent than `assistant`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

WAIT = 120.0  # seconds, for one answer and for the end of a task
QUESTION = {"input": "Reply with one word: ready", "cache": "bypass", "max_tokens": 64}


class Failed(Exception):
    """Fault to be printed, without the key."""


class Smoke:
    """One service, asked with one key."""

    def __init__(self, url: str, key: str, agent: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise Failed(f"{url} is not the address of a service")
        self.url, self.key, self.agent = url.rstrip("/"), key, agent

    def call(self, path: str, body: Mapping[str, object] | None = None) -> str:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise Failed(
                f"{path} answered {error.code}: {error.read(500).decode(errors='replace')}"
            ) from None
        except (OSError, ValueError) as error:
            raise Failed(f"{path} did not answer: {error}") from None

    def json(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        try:
            return dict(json.loads(self.call(path, body)))
        except (ValueError, TypeError):
            raise Failed(f"{path} did not answer with a JSON object") from None

    def health(self) -> str:
        return f"version {self.json('/health').get('version')}"

    def ready(self) -> str:
        state = self.json("/ready")
        if state.get("status") != "ok":
            raise Failed(f"/ready says {state.get('status')}: {json.dumps(state)[:500]}")
        return "database, Redis, model and worker"

    def invoke(self) -> str:
        return self._succeeded(self.json(f"/v1/agents/{self.agent}/invoke", QUESTION))

    def stream(self) -> str:
        told = self.call(f"/v1/agents/{self.agent}/stream", QUESTION)
        if "event: run.completed" not in told:
            raise Failed(f"the stream ended without run.completed: {told[-500:]}")
        return f"{told.count('event: text.delta')} pieces of text"

    def task(self) -> str:
        run = self.json(f"/v1/agents/{self.agent}/tasks", QUESTION)
        end = time.monotonic() + WAIT
        while run["status"] in ("queued", "running"):
            if time.monotonic() > end:
                raise Failed(f"the task {run['run_id']} is {run['status']} after {WAIT:.0f} s")
            time.sleep(0.5)
            run = self.json(f"/v1/runs/{run['run_id']}")
        return self._succeeded(run)

    def _succeeded(self, run: Mapping[str, Any]) -> str:
        if run.get("status") != "succeeded":
            raise Failed(f"the run {run.get('run_id')} is {run.get('status')}: {run.get('error')}")
        return f"run {run['run_id']} by {run['model']}"


def main(url: str) -> int:
    """Print a line for each step; return 1 at the first that fails."""
    key = os.environ.get("SMOKE_KEY", "")
    try:
        smoke = Smoke(url, key, os.environ.get("SMOKE_AGENT", "assistant"))
        steps: list[Callable[[], str]] = [smoke.health, smoke.ready]
        steps += [smoke.invoke, smoke.stream, smoke.task] if key else []
        for step in steps:
            print(f"smoke: {step.__name__}: {step()}", flush=True)
    except Failed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    if not key:
        print("smoke: SMOKE_KEY is empty, so no question was asked", file=sys.stderr)
    return 0 if key else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: SMOKE_KEY=slp_… python3 -m scripts.smoke URL")
    sys.exit(main(sys.argv[1]))
