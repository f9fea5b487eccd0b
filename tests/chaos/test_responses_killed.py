"""`kill -9` of the worker of a response in the background, and of the web workers that tell of it: the same numbers."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.chaos.houses import House
from tests.chaos.test_worker_killed import kill_workers
from tests.jobs.house import TaskWorker
from tests.web.openai.conftest import sdk_of

KILLS = int(os.environ.get("CHAOS_RESPONSES", "4"))
EVENTS = 40  # in such a response, about


@pytest.fixture
def worker(house: House) -> Iterator[TaskWorker]:
    env = {**house.server.env, "TASK_CONCURRENCY": "1"}
    made = TaskWorker(env, house.server.log.with_name("worker-responses.log"))
    with made.kept():
        yield made


@pytest.fixture
def sdk(house: House) -> Iterator[openai.OpenAI]:
    with house.server.client() as client:
        token = client.headers["Authorization"].removeprefix("Bearer ")
    with sdk_of(house.server, token, retries=5) as made:
        yield made


def followed(sdk: openai.OpenAI, response_id: str, kills: dict[int, Any]) -> list[Any]:
    """Events of a response, read by as many streams as it takes; `kills` are done at their numbers."""
    events: list[Any] = []
    end = time.monotonic() + 90
    while time.monotonic() < end:
        after: Any = {"starting_after": events[-1].sequence_number} if events else {}
        try:
            with sdk.responses.retrieve(response_id, stream=True, **after) as stream:
                for event in stream:
                    events.append(event)
                    if (kill := kills.pop(event.sequence_number, None)) is not None:
                        time.sleep(random.uniform(0, 0.05))
                        kill()
        except (openai.APIConnectionError, httpx2.HTTPError):
            time.sleep(0.1)
        if events and events[-1].type == "response.completed":
            return events
    raise AssertionError(f"no end of {response_id}: {[event.type for event in events][-3:]}")


def test_a_killed_response_is_told_once_and_whole(
    house: House, worker: TaskWorker, sdk: openai.OpenAI
) -> None:
    house.model.control(first_token_ms=50, token_ms=40)
    random.seed(11)
    for number in range(KILLS):
        begun = sdk.responses.create(
            model="assistant", input=f"What holds after kill number {number}?", background=True
        )
        first, second = sorted(random.sample(range(4, EVENTS), 2))
        kills = {first: worker.kill, second: lambda: kill_workers(house.server)}
        events = followed(
            sdk, begun.id, kills if number % 2 else {first: kills[second], second: kills[first]}
        )
        assert [event.sequence_number for event in events] == list(range(len(events)))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        whole = sdk.responses.retrieve(begun.id)
        assert (whole.status, whole.output_text) == ("completed", text)
        assert followed(sdk, begun.id, {}) == events
        assert (
            list(sdk.responses.retrieve(begun.id, stream=True, starting_after=second)) == events[second + 1 :]
        )
