"""Requests over the transport."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from service.llm.transport import ModelTransport
from tests.llm.wire_server import WireServer


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=ModelTransport(2), timeout=httpx2.Timeout(5, pool=0.05)) as client:
        yield client


def post(client: httpx2.Client, server: WireServer) -> httpx2.Response:
    return client.post(server.url, content=b"{}")
