"""Both replicas are restarted, one after the other, under load and with streams open: nobody loses anything."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chaos.test_worker_killed import Reader
from tests.conftest import ROOT, Slipway, wait_until
from tests.nginx.edge import NGINX
from tests.nginx.pair import Pair, pair_of

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx-light)")
ASKING = 6  # clients that ask again and again
LISTENING = 4  # streams that are open all the while


def restart(replica: Slipway) -> None:
    """As a deploy does: SIGTERM, wait until it has gone, start the next at the same address."""
    replica.child.terminate()
    replica.child.wait(40)
    with replica.log.open("ab") as out:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
        env = {**os.environ, **replica.env}
        replica.child = subprocess.Popen(
            command, env=env, cwd=ROOT, start_new_session=True, stdout=out, stderr=out
        )
    wait_until(lambda: httpx2.get(f"{replica.url}/health").status_code == 200, "the replica again")


class Asker(threading.Thread):
    """Asks one question after another through nginx, without a key or a retry of its own."""

    def __init__(self, pair: Pair, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        with pair.one.client() as signed_in:
            self.client = pair.client(pair.edge.url, like=signed_in)
        self.number, self.stop = number, stop
        self.answers: list[tuple[int, str]] = []

    def run(self) -> None:
        asked = 0
        while not self.stop.is_set():
            asked += 1
            question = {"input": f"Client {self.number} asks {asked}", "cache": "bypass"}
            try:
                answer = self.client.post("/v1/agents/assistant/invoke", json=question)
                self.answers.append((answer.status_code, answer.text))
            except httpx2.HTTPError as error:
                self.answers.append((0, repr(error)))
        self.client.close()


def listen(pair: Pair, results: list[dict[str, Any]]) -> None:
    reader = Reader(pair.one, kill_at=-1)
    direct, reader.client = reader.client, pair.client(pair.edge.url, like=reader.client)
    direct.close()
    result = reader.read({"input": "[offline tokens=400 token_ms=40] Speak slowly."}, agent="assistant")
    reader.client.close()
    text = "".join(data["text"] for _, name, data in reader.events if name == "text.delta")
    results.append({**result, "told": text})


def test_no_request_fails_and_no_run_is_lost(scratch: Path) -> None:
    with pair_of(scratch / "rolling", "postgresql", GRACEFUL_TIMEOUT="6", LIMIT_RUNS="100000/minute") as pair:
        pair.model.control(first_token_ms=150)
        stop = threading.Event()
        askers = [Asker(pair, number, stop) for number in range(ASKING)]
        results: list[dict[str, Any]] = []
        listeners = [threading.Thread(target=listen, args=(pair, results)) for _ in range(LISTENING)]
        for thread in [*askers, *listeners]:
            thread.start()
        time.sleep(1.5)
        for replica in (pair.one, pair.two):
            restart(replica)
            time.sleep(1)
        stop.set()
        for asker in askers:
            asker.join(30)
        for listener in listeners:
            listener.join(60)
        answers = [answer for asker in askers for answer in asker.answers]
        assert [answer for answer in answers if answer[0] != 200] == []
        assert len(answers) > ASKING * 5
        assert [result["status"] for result in results] == ["succeeded"] * LISTENING
        assert all(result["told"] == result["output"] for result in results)
        with pair.one.client() as client:
            open_runs = [
                client.get("/v1/runs", params={"status": status}).json()["data"]
                for status in ("running", "queued")
            ]
            assert open_runs == [[], []]
        for replica in (pair.one, pair.two):  # the ones started here
            replica.child.terminate()
            replica.child.wait(20)
