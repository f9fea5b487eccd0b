"""A real Prometheus over two replicas: counters neither fall nor lose what the load sent, however workers end."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import Slipway, wait_until
from tests.nginx.pair import Pair, pair_of
from tests.observe.prometheus import PROMETHEUS, Prometheus, scraping

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed (apt install prometheus)"),
]
INVOKE = "/v1/agents/assistant/invoke"
BURST = 20
RUNS = 'sum(slipway_runs_total{agent="assistant"})'
ANSWERS = 'sum(slipway_http_requests_total{route=~".*invoke",status="200"})'
TOKENS = 'sum(slipway_tokens_total{kind="output"})'
COUNTED = '{__name__=~"slipway_.*_(total|count|bucket|sum)"}[10m]'


def burst(pool: ThreadPoolExecutor, there: httpx2.Client) -> list[Future[httpx2.Response]]:
    body = {"cache": "bypass"}
    return [
        pool.submit(there.post, INVOKE, json={**body, "input": f"Question {uuid4()}"}) for _ in range(BURST)
    ]


def kill_workers(pair: Pair) -> None:
    """Kill one worker of each replica, while it waits for the model."""
    for replica in (pair.one, pair.two):
        os.kill(replica.workers()[0], signal.SIGKILL)


def restart_workers(pair: Pair) -> None:
    """Replace the workers of each replica, which end what they have begun."""
    for replica in (pair.one, pair.two):
        before = set(replica.workers())
        replica.child.send_signal(signal.SIGHUP)
        wait_until(lambda replica=replica, before=before: _replaced(replica, before), "new workers")


def _replaced(replica: Slipway, before: set[int]) -> bool:
    return len(set(replica.workers()) - before) >= 2


def test_counters_never_fall_and_equal_the_load(scratch: Path) -> None:
    settings = {"THREADS": "32", "GUNICORN_CMD_ARGS": "--max-requests 40", "LEASE_SECONDS": "2"}
    with (
        pair_of(scratch / "scraped", "postgres", **settings, SWEEP_SECONDS="1") as pair,
        closing(pair.two.client()) as client,
        scraping(scratch / "prometheus", [pair.one.port, pair.two.port]) as prometheus,
        pair.client(pair.edge.url, client) as there,
        ThreadPoolExecutor(BURST) as pool,
    ):
        answers = []
        for disturb in (None, kill_workers, restart_workers, kill_workers, None):
            pair.model.reset()
            pair.model.control(first_token_ms=700)
            asked = burst(pool, there)
            wait_until(lambda: pair.model.stats()["calls"] >= BURST // 2, "calls are under way")
            if disturb is not None:
                disturb(pair)
            answers += [future.result(90) for future in asked]
        assert Counter(answer.status_code for answer in answers) == {200: 5 * BURST}
        runs = {answer.json()["run_id"] for answer in answers}
        assert len(runs) == 5 * BURST
        tokens = sum(answer.json()["usage"]["output_tokens"] for answer in answers)
        wait_until(lambda: scraped(prometheus, len(runs)), "all of it in Prometheus", 30)
        assert prometheus.value(RUNS) == len(runs)
        assert prometheus.value(TOKENS) == tokens
        assert prometheus.value(ANSWERS) == len(answers)
        assert fallen(prometheus) == []
        assert prometheus.value("max(slipway_database_up)") == 1
        assert prometheus.value("sum(slipway_hold_overruns_total)") == 0
        assert prometheus.value("max(slipway_cap_overshoot_usd)") == 0


def fallen(prometheus: Prometheus) -> list[dict[str, str]]:
    """List the series of which a scrape found less than the one before."""
    series = prometheus.query(COUNTED)
    assert len(series) > 200 and max(len(each["values"]) for each in series) > 10
    figures = [(each["metric"], [float(value) for _, value in each["values"]]) for each in series]
    return [labels for labels, values in figures if values != sorted(values)]


def scraped(prometheus: Prometheus, runs: int) -> bool:
    """Return whether all runs have been scraped, and nothing runs any more."""
    return prometheus.value(RUNS) == runs and prometheus.value("sum(slipway_runs_active)") == 0
