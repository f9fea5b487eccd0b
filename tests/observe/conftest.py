"""Slipway with its traces on, before a receiver of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.observe.otlp import Receiver, receiver


def traced_by(receiver: Receiver, **settings: str) -> dict[str, str]:
    """Return the settings by which everything is traced."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_TRACES_SAMPLER_ARG": "1", **settings}


@pytest.fixture(scope="module")
def got() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def traced(scratch: Path, redis_server: RedisServer, model: Model, got: Receiver) -> Iterator[Slipway]:
    settings = traced_by(got, WEB_CONCURRENCY="2", THREADS="12")
    with slipway_server(scratch / "traced", redis_server.url, model.url, **settings) as server:
        yield server
