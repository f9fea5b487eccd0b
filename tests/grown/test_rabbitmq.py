"""RabbitMQ carries the queue beside a Redis Cluster, over TLS: killed, frozen and away, no task is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Model, Slipway, slipway_server, wait_until
from tests.grown.parts import Cluster, certificates, cluster
from tests.grown.rabbitmq import PASSWORD, Rabbit, rabbitmq
from tests.grown.smoke import Load, ready, round_trip, task, task_worker

SETTINGS = {"WEB_CONCURRENCY": "2", "THREADS": "64", "SWEEP_SECONDS": "1", "LIMIT_RUNS": "100000/minute"}


class House(NamedTuple):
    server: Slipway
    redis: Cluster
    broker: Rabbit


@pytest.fixture(scope="module")
def house(scratch: Path, model: Model) -> Iterator[House]:
    """Service whose web processes use TLS with a certificate, and whose task worker uses plain text."""
    folder = scratch / "rabbitmq"
    with ExitStack() as stack:
        parts = stack.enter_context(cluster(folder / "redis", 3))
        broker = stack.enter_context(rabbitmq(scratch, certificates(folder / "tls")))
        settings = {**SETTINGS, "BROKER_URL": broker.tls_url}
        started = slipway_server(folder / "slipway", parts.url, model.url, **settings)
        server = stack.enter_context(started)
        stack.enter_context(task_worker(server, BROKER_URL=broker.url))
        wait_until(lambda: ready(server)["status"] == "ok", "all parts", 60)
        yield House(server, parts, broker)


def test_everything_works_with_rabbitmq_and_cluster(house: House) -> None:
    round_trip(house.server, celery=True)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_lost_broker_loses_no_task_and_is_found_again(house: House, fault: str) -> None:
    with Load(house.server) as load:
        wait_until(lambda: len(load.queued) > 5, "tasks in the queue", 60)
        if fault == "killed":
            house.broker.kill()
        else:
            house.broker.send(signal.SIGSTOP)
        before = len(load.queued)
        wait_until(lambda: len(load.queued) > before + 10, "tasks without a broker", 60)
        if fault == "killed":
            house.broker.start()
        else:
            house.broker.send(signal.SIGCONT)
        before = len(load.queued)
        wait_until(lambda: len(load.queued) > before + 5, "tasks with one again", 60)
    print(load.verdict())
    assert not load.failed, load.verdict()
    assert load.lost() == []
    with house.server.client() as client:
        wait_until(lambda: ready(house.server)["worker"]["status"] == "ok", "the task worker", 60)
        task(house.server, client, f"After one that was {fault}:")


def test_logs_contain_no_password(house: House) -> None:
    """Search all logs; the last test, after every other failure."""
    server = house.server
    for log in (server.log, server.log.with_name(f"worker-{server.port}.log")):
        text = log.read_text(errors="replace")
        assert PASSWORD not in text and PASSWORD.replace("@", "%40") not in text
    assert "Traceback" not in server.log.read_text(errors="replace")
