"""`kill -9` of a run's worker: the client reads one whole answer, and no tool call is repeated."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import httpx2

from tests.chaos.houses import House
from tests.conftest import Slipway

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
# Killed within the tool, nobody can say whether it was called: a person has to, and none is here.
ENDS = ("run.completed", "run.failed", "run.cancelled", "approval.required")
EVENTS = 80  # in such a run, about: ten rounds of model and tool, and the answer word by word
QUESTION = {"input": "Call the append_line tool 10 times."}


class Reader:
    """Read a stream, reconnecting with `Last-Event-ID` until the last event."""

    def __init__(self, server: Slipway, kill_at: int, client: httpx2.Client | None = None) -> None:
        self.server = server
        self.kill_at = kill_at  # the number of events after which the workers are killed
        self.client = client or server.client()
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.run_id = ""

    def read(self, question: dict[str, Any], agent: str = "scribe") -> dict[str, Any]:
        return self._followed(self.client.stream("POST", f"/v1/agents/{agent}/stream", json=question))

    def read_on(self) -> dict[str, Any]:
        """Read the events after the last one, of a run that waited."""
        return self._followed(self._rest())

    def _rest(self) -> AbstractContextManager[httpx2.Response]:
        return self.client.stream(
            "GET",
            f"/v1/runs/{self.run_id}/events",
            headers={"Last-Event-ID": f"{self.run_id}:{self.events[-1][0]}"},
        )

    def _followed(self, stream: AbstractContextManager[httpx2.Response]) -> dict[str, Any]:
        before = len(self.events)
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                with stream as response:
                    response.raise_for_status()
                    self._take(response)
            except httpx2.HTTPError:
                time.sleep(0.1)
            if len(self.events) > before and self.events[-1][1] in ENDS:
                return self.events[-1][2]
            assert self.run_id, "the stream broke before its first event"
            stream = self._rest()
        raise AssertionError(f"no last event; got {[name for _, name, _ in self.events][-5:]}")

    def _take(self, response: httpx2.Response) -> None:
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "event" in fields:
                if "id" not in fields:  # `reconnect` is no event of the run
                    return
                self.run_id, _, seq = fields["id"].rpartition(":")
                self.events.append((int(seq), fields["event"], json.loads(fields["data"])))
                fields = {}
                if len(self.events) == self.kill_at:
                    self.kill()
                if self.events[-1][1] == "approval.required":
                    return

    def kill(self) -> None:
        time.sleep(random.uniform(0, 0.05))
        kill_workers(self.server)


def test_killed_worker_gives_one_whole_answer_and_repeats_nothing(house: House) -> None:
    server, lines = house.server, house.lines
    house.model.control(first_token_ms=30, token_ms=8)
    random.seed(7)
    resumed = waited = 0
    for round_number in range(KILLS):
        lines.write_text("")
        reader = Reader(server, kill_at=random.randint(1, EVENTS - 1))
        result = reader.read(QUESTION)
        reader.client.close()
        names = Counter(name for _, name, _ in reader.events)
        assert max(Counter(lines.read_text().split()).values(), default=1) == 1, round_number
        if "approval.required" in names:  # killed within the tool: a person is asked
            waited += 1
            continue
        assert result["status"] == "succeeded", (round_number, result.get("error"))
        seqs = [seq for seq, _, _ in reader.events]
        assert seqs == list(range(1, len(seqs) + 1)), round_number
        text = "".join(data["text"] for _, name, data in reader.events if name == "text.delta")
        assert text == result["output"]
        called = [data["call_id"] for _, name, data in reader.events if name == "tool.called"]
        assert len(called) == len(set(called)) == 10
        assert len(lines.read_text().split()) == 10
        resumed += bool(names["run.resumed"])
    assert resumed > KILLS / 4 and resumed + waited > KILLS * 0.7, (resumed, waited)  # else it proves little


def kill_workers(server: Slipway) -> None:
    for pid in server.workers():
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)
