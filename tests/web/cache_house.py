"""Slipway with agents that cache their answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.ids import new_id
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.runs import inside

LETTERS = str.maketrans("0123456789_", "abcdefghijk")
CACHED = (
    f"{inside.SINGLE}limits: {{steps: 1, seconds: 20}}\ncache: {{ttl_seconds: %d, stale: true, shared: %s}}\n"
)
AGENTS = {
    "probe": CACHED % (600, "false"),
    "brief": CACHED % (1, "false"),
    "shared": CACHED % (600, "true"),
}


class House:
    """A Slipway in this process, with ada signed in."""

    def __init__(self, wired: Services, model: Model) -> None:
        self.wired = wired
        self.model = model
        self.app = create_app(wired.settings, wired)
        ada = wired.auth.users.by_name("ada")
        assert ada is not None
        self.token = wired.auth.tokens.begin(ada).access_token

    @property
    def client(self) -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        return client

    def ask(self, text: str, door: str = "invoke", agent: str = "probe", **options: Any) -> Any:
        """The answer, read to its end here, as a server would: to read a stream is to drive its run."""
        path = f"/v1/agents/{agent}/{door}"
        return self.client.post(path, json={"input": text}, buffered=True, **options)


@pytest.fixture(scope="module")
def standing(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model
) -> Iterator[House]:
    home: Path = tmp_path_factory.mktemp("cache")
    settings: dict[str, Any] = {"model_retries": 0, "threads": 64, "limit_runs": "100000/minute"}
    with inside.services(home, redis_server.url, model.url, AGENTS, **settings) as wired:
        yield House(wired, model)


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    standing.model.reset()
    yield standing
    standing.model.reset()


@pytest.fixture
def text() -> str:
    """Asked nowhere else. Without digits: many of them make the cheap model be asked for the tier."""
    return f"What about {new_id('x').translate(LETTERS)}?"
