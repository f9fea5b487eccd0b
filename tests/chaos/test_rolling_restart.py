"""Rolling restart of both replicas under load with open streams: no request fails."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chaos.test_worker_killed import Reader
from tests.conftest import Slipway, process, wait_until
from tests.nginx.edge import NGINX
from tests.nginx.pair import pair_of

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx-light)")
ASKING = 6  # clients that ask again and again
LISTENING = 4  # streams that are open all the while


def restart(replica: Slipway, ended: ExitStack) -> None:
    """Restart a replica as a deploy does: SIGTERM, wait, start the next at the same address."""
    replica.child.terminate()
    replica.child.wait(40)
    out = ended.enter_context(replica.log.open("ab"))
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    replica.child = ended.enter_context(process(command, replica.env, stdout=out, stderr=out))
    wait_until(lambda: httpx2.get(f"{replica.url}/health").status_code == 200, "the replica again")


class Asker(threading.Thread):
    """Asks one question after another through nginx, without a key or a retry of its own."""

    def __init__(self, client: httpx2.Client, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.client = client
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


def listen(reader: Reader, results: list[dict[str, Any]]) -> None:
    result = reader.read({"input": "[offline tokens=400 token_ms=40] Speak slowly."}, agent="assistant")
    reader.client.close()
    text = "".join(data["text"] for _, name, data in reader.events if name == "text.delta")
    results.append({**result, "told": text})


def test_no_request_fails_and_no_run_is_lost(scratch: Path) -> None:
    settings = {"GRACEFUL_TIMEOUT": "6", "LIMIT_RUNS": "100000/minute"}
    with pair_of(scratch / "rolling", "postgresql", **settings) as pair, ExitStack() as ended:
        pair.model.control(first_token_ms=150)
        stop = threading.Event()
        with closing(pair.one.client()) as signed_in:
            clients = [pair.client(pair.edge.url, like=signed_in) for _ in range(ASKING + LISTENING)]
        askers = [Asker(client, number, stop) for number, client in enumerate(clients[:ASKING])]
        readers = [Reader(pair.one, kill_at=-1, client=client) for client in clients[ASKING:]]
        results: list[dict[str, Any]] = []
        listeners = [threading.Thread(target=listen, args=(reader, results)) for reader in readers]
        for thread in [*askers, *listeners]:
            thread.start()
        wait_until(
            lambda: all(reader.events for reader in readers) and all(asker.answers for asker in askers),
            "an answer for everybody",
        )
        for replica in (pair.one, pair.two):
            restart(replica, ended)
            before = [len(asker.answers) for asker in askers]
            wait_until(
                lambda before=before: all(
                    len(asker.answers) > count for asker, count in zip(askers, before, strict=True)
                ),
                "an answer for everybody since",
            )
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
