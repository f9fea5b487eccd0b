"""Every bundled agent answers its question of the README as a task."""

from __future__ import annotations

import httpx2
import pytest

from tests.jobs.house import House, TaskWorker, ended
from tests.rules.test_readme_agents import ROWS


@pytest.mark.parametrize(("agent", "question"), ROWS, ids=[name for name, _ in ROWS])
def test_the_question_is_answered_as_a_task(
    house: House, worker: TaskWorker, client: httpx2.Client, agent: str, question: str
) -> None:
    run = ended(client, house.queue(client, question, agent))
    assert (run["status"], bool(run["output"])) == ("succeeded", True), run["error"]
