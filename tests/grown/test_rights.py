"""Redis rights documented in docs/growing.md are sufficient, and TLS covers the queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kombu.entity import Exchange, Queue

from config import load
from service.jobs.broker import QUEUE, make_app
from tests.conftest import Model, slipway_server, wait_until
from tests.grown.parts import Node, certificates, cluster, one
from tests.grown.smoke import ready, round_trip, task_worker
from tests.infra.test_redis_rights import documented
from tests.jobs.house import TaskWorker

USERS = {"slipway-web": "web-55-pass", "slipway-task": "task-55-pass"}


def _grant(node: Node, name: str, *more: str) -> None:
    rules = [rule for rule in documented(name) if not rule.startswith(">")]
    node.ask("ACL", "SETUSER", name, *rules, f">{USERS.get(name, 'speed-55-pass')}", *more)


def _denied(node: Node) -> list[dict[str, Any]]:
    """Return commands refused to a user, except redis-py's connection name."""
    found = [{str(key): value for key, value in entry.items()} for entry in node.ask("ACL", "LOG", "100")]
    return [entry for entry in found if "client|setinfo" not in str(entry["object"])]


def test_web_and_task_worker_work_with_the_documented_rights_over_tls(scratch: Path, model: Model) -> None:
    folder = scratch / "rights"
    tls = certificates(folder / "tls")
    with one(folder / "redis", tls) as node:
        for name in USERS:
            _grant(node, name)
        urls = {
            name: f"rediss://{name}:{password}@127.0.0.1:{node.port}/0?{tls.query}"
            for name, password in USERS.items()
        }
        with (
            slipway_server(
                folder / "slipway", urls["slipway-web"], model.url, WEB_CONCURRENCY="2", THREADS="16"
            ) as server,
            task_worker(server, REDIS_URL=urls["slipway-task"]),
        ):
            wait_until(lambda: ready(server)["status"] == "ok", "all parts")
            round_trip(server, celery=True)
            _take_back_and_restore(urls["slipway-task"])
            assert _denied(node) == []
            node.ask("ACL", "SETUSER", "slipway-web", "-xadd")
            wait_until(
                lambda: ready(server)["redis"].get("reason") == "may not write: XADD", "the reason", 10
            )
            node.ask("ACL", "SETUSER", "slipway-task", "-brpop")
            refused = TaskWorker(
                {**server.env, "REDIS_URL": urls["slipway-task"]}, folder / "slipway" / "refused.log"
            )
            with refused.running():
                wait_until(lambda: _events(refused.log, "queue_refused"), "the reason")
            assert [line["reason"] for line in _events(refused.log, "queue_refused")] == [
                "may not read: BRPOP"
            ]


def _events(log: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def _take_back_and_restore(url: str) -> None:
    """Trigger Celery's rare commands: reject a message, and restore unacknowledged ones."""
    app = make_app(load({"APP_ENV": "testing", "REDIS_URL": url}))
    taken: list[Any] = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue(f"{QUEUE}-of-a-test", Exchange(""), channel=channel)
        app.amqp.Producer(channel).publish({"x": 1}, routing_key=queue.name, exchange="")
        with connection.Consumer([queue], channel=channel, on_message=taken.append, auto_declare=False):
            connection.drain_events(timeout=10)
            taken[0].reject(requeue=True)
            connection.drain_events(timeout=10)
            channel.qos.restore_visible(interval=1)
            taken[1].ack()
    assert len(taken) == 2


def test_cluster_works_with_the_documented_rights(scratch: Path, model: Model) -> None:
    folder = scratch / "cluster-rights"
    with cluster(folder, 3) as parts:
        for node in parts.nodes:
            _grant(node, "slipway-speed", "+cluster|slots", "+command")
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in parts.nodes)
        url = f"redis+cluster://slipway-speed:speed-55-pass@{hosts}"
        with slipway_server(folder / "slipway", url, model.url, WEB_CONCURRENCY="1", THREADS="16") as server:
            wait_until(lambda: ready(server)["redis"]["status"] == "ok", "the cluster")
            round_trip(server, celery=False)
            assert [_denied(node) for node in parts.nodes] == [[]] * 3
            assert "live_publish_failed" not in server.log.read_text()
