"""Fuzzing from the OpenAPI document, within its bounds and beyond: answers as documented, never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.described import Description
from tests.web.bad import survived

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
# They end what the others need: the log-in, or a stream that goes on.
LEFT_OUT = {"/v1/auth/logout", "/v1/auth/refresh"}


@pytest.fixture(scope="module")
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    most = {"LIMIT_RUNS": "1000000/minute", "LIMIT_LOGIN": "1000000/minute", "THREADS": "12"}
    with slipway_server(scratch / "fuzz", redis_server.url, model.url, **most) as server:
        yield server
        assert "unhandled_error" not in server.log.read_text(errors="replace")


def test_generated_requests(house: Slipway) -> None:
    document = Description.of(house.url).document
    with closing(house.client()) as caller:
        caller.timeout = 20  # type: ignore[assignment]
        token = {"Authorization": caller.headers["Authorization"]}
        sent = 0
        schema = schemathesis.openapi.from_dict(document)
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            if operation.path not in LEFT_OUT:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    sent += _try_out(caller, operation, mode, token)
    assert sent > 200  # else the generator found little to make, and this shows nothing


def _try_out(caller: Any, operation: Any, mode: GenerationMode, token: dict[str, str]) -> int:
    """How many requests were sent."""
    sent = 0

    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        nonlocal sent
        sent += 1
        request = case.as_transport_kwargs(base_url=str(caller.base_url), headers=token)
        answer = caller.request(
            request["method"],
            request["url"],
            params=request.get("params"),
            headers={name: str(value).encode("utf-8") for name, value in request["headers"].items()},
            cookies=None,
            **({"json": request["json"]} if "json" in request else {"content": request.get("data")}),
        )
        survived(answer)

    with suppress(Unsatisfiable):  # nothing of a route without body and parameters can be wrong
        one()
    return sent
