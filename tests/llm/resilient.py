"""Retrying clients over a scripted server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.llm import retry
from service.llm.claude import ClaudeClient
from service.llm.retry import RetryingClient
from service.observe.observer import ModelAttempt
from tests.llm.wire_server import (
    error,
)

OVERLOADED = error(529, "overloaded_error")
REJECTED = error(400, "invalid_request_error")
MakeResilient = Callable[..., RetryingClient]


@pytest.fixture
def attempts() -> list[ModelAttempt]:
    return []


@pytest.fixture
def make(
    claude: ClaudeClient, attempts: list[ModelAttempt], monkeypatch: pytest.MonkeyPatch
) -> MakeResilient:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)

    def make(
        inner: Any = claude, retries: int = 3, failures: int = 100, recovery: float = 10.0
    ) -> RetryingClient:
        return RetryingClient(inner, retries, failures, recovery, attempts.append)

    return make
