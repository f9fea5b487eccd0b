"""Task workers see an edited agent too, although no request reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.agents.house import GOOD, write
from tests.conftest import Model, RedisServer, slipway_server
from tests.jobs.conftest import SETTINGS
from tests.jobs.house import House, Receiver, ended


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("edited"), agent_yaml=GOOD, prompt_md="Be first.")


@pytest.fixture(scope="module")
def edited(
    scratch: Path, task_redis: RedisServer, model: Model, receiver: Receiver, agents: Path
) -> Iterator[House]:
    """Service whose task worker has one process, so that every task runs in the same one."""
    settings = {**SETTINGS, "AGENTS_DIR": str(agents), "RELOAD": "1", "TASK_CONCURRENCY": "1"}
    with slipway_server(scratch / "edited", task_redis.url, model.url, **settings) as server:
        house = House(server, task_redis, model, receiver)
        with house.worker("edited").running():
            yield house


@pytest.fixture
def author(edited: House) -> Iterator[httpx2.Client]:
    with closing(edited.server.client()) as signed_in:
        yield signed_in


def test_task_runs_with_the_current_agent_version(edited: House, author: httpx2.Client, agents: Path) -> None:
    first = ended(author, edited.queue(author, "x", "probe"))
    write(agents, prompt_md="Be second.")
    second = ended(author, edited.queue(author, "x", "probe"))
    version = author.get("/v1/agents/probe").json()["version"]
    assert (first["agent_version"] != version, second["agent_version"]) == (True, version)


def test_tasks_of_a_new_agent_run_without_a_restart(
    edited: House, author: httpx2.Client, agents: Path
) -> None:
    write(agents, "newcomer", agent_yaml=GOOD, prompt_md="Be new.")
    assert ended(author, edited.queue(author, "x", "newcomer"))["status"] == "succeeded"


def test_broken_agent_edit_does_not_stop_tasks(edited: House, author: httpx2.Client, agents: Path) -> None:
    good = author.get("/v1/agents/probe").json()["version"]
    write(agents, agent_yaml="pattern: single\n")
    run = ended(author, edited.queue(author, "x", "probe"))
    assert (run["status"], run["agent_version"]) == ("succeeded", good)
