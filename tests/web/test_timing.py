"""Around a request: its id, its time, its line and its count."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.web.timing import request_id
from tests.made import app_in, close


@pytest.mark.parametrize("sent", ["a", "A-z_0.9", "x" * 128])
def test_an_id_that_was_sent_is_kept(sent: str) -> None:
    assert request_id(sent) == sent


@pytest.mark.parametrize("sent", ["", " ", "a b", "x" * 129, "é", "a\n", "a/b", "<x>"])
def test_invalid_request_id_is_replaced(sent: str) -> None:
    made = {request_id(sent) for _ in range(10)}
    assert len(made) == 10 and sent not in made and all(request_id(one) == one for one in made)


def test_one_line_and_one_count_for_each_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = app_in(tmp_path)
    client = made.test_client()
    with caplog.at_level(logging.INFO, "slipway.request"):
        client.get("/nothing?token=secret", headers={"X-Request-ID": "mine"})
        client.get("/health")
        client.get("/v1/runs/run_of_somebody")
    told = [(line.route, line.status) for line in caplog.records if line.message == "request"]  # type: ignore[attr-defined]
    assert told == [
        ("(none)", 404),
        ("/v1/runs/<run_id>", 401),
    ]  # nobody's id or query becomes part of a name
    counted = made.extensions["slipway"].infra.metrics.render()[0].decode()
    assert 'slipway_http_requests_total{method="GET",route="(none)",status="404"} 1.0' in counted
    assert 'slipway_http_requests_total{method="GET",route="/health",status="200"} 1.0' in counted
    close(made)
