"""The watched service, one for all tests of alerts and boards; every part is its own, as each is broken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.conftest import ROOT, free_port, model_server, redis_in, slipway_server
from tests.deploy.observability.house import PRICES, House, LimitingProxy, add_agents
from tests.deploy.observability.prometheus import prometheus
from tests.jobs.house import TaskWorker
from tests.small_disk import small_disk

SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "THREADS": "64",
    "TASK_CONCURRENCY": "1",
    "LEASE_SECONDS": "20",  # a frozen worker keeps its tasks for so long
    "LIMIT_RUNS": "100000/minute",
    "RUN_TIMEOUT": "120",
    "MODEL_TIMEOUT": "30",
    "MODEL_RETRIES": "1",
}
# What takes hours, gigabytes or millions in a rule, and less in a test.
THRESHOLDS = {
    "QueueOld": ("> 300", "> 2"),
    "ApprovalWaiting": ("> 3600", "> 2"),
    "RunInALoop": ("> 1000000", "> 3000"),
    "TokenSpike": ("> 1000000", "> 20000"),
}


@pytest.fixture(scope="session")
def standing(scratch: Path) -> Iterator[House]:
    scratch.chmod(0o755)
    folder = Path(tempfile.mkdtemp(prefix="seen", dir=scratch))
    folder.chmod(0o755)
    agents = folder / "agents"
    shutil.copytree(ROOT / "agents", agents)
    add_agents(agents)
    (folder / "prices.yaml").write_text(PRICES)
    with ExitStack() as stack:
        postgres = Postgres(folder / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        redis = stack.enter_context(redis_in(folder / "redis"))
        model = stack.enter_context(model_server())
        proxy = stack.enter_context(LimitingProxy(int(model.url.rpartition(":")[2])).standing())
        home = stack.enter_context(small_disk(folder / "home", 64))
        settings = {
            **SETTINGS,
            "DATABASE_URL": postgres.url,
            "AGENTS_DIR": str(agents),
            "MODEL_PRICES": str(folder / "prices.yaml"),
        }
        server = stack.enter_context(
            slipway_server(home, redis.url, f"http://127.0.0.1:{proxy.port}", **settings)
        )
        port = free_port()
        elsewhere = {"SLIPWAY_HOME": str(folder / "worker"), "TASK_METRICS_PORT": str(port)}
        worker = TaskWorker({**server.env, **elsewhere}, folder / "worker.log")
        (folder / "worker").mkdir()
        stack.enter_context(worker.kept())
        targets = {"slipway": server.port, "slipway-worker": port}
        watching = stack.enter_context(prometheus(folder / "prometheus", targets, THRESHOLDS))
        with server.client() as admin:
            token = admin.headers["Authorization"]
        yield House(server, model, proxy, redis, postgres, worker, home, watching, token)


@pytest.fixture
def house(standing: House) -> House:
    standing.model.reset()
    return standing
