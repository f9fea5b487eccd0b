"""nginx over two scripted replicas; `pair.py` has the real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nginx.edge import NGINX, Edge, Replica

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.nginx)
            if NGINX is None:
                item.add_marker(pytest.mark.skip(reason="nginx is not installed (apt install nginx-light)"))


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[Replica, Replica]]:
    with Replica() as one, Replica() as two:
        yield one, two


@pytest.fixture(scope="module")
def running_edge(
    replicas: tuple[Replica, Replica], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    with Edge(tmp_path_factory.mktemp("nginx"), [r.port for r in replicas]) as edge:
        yield edge


@pytest.fixture
def edge(running_edge: Edge, replicas: tuple[Replica, Replica]) -> Iterator[Edge]:
    yield running_edge
    for replica in replicas:
        replica.script = None
        replica.seen.clear()
