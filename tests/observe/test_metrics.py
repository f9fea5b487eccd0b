from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client import generate_latest

from service.observe import folder
from service.observe.metrics import Metrics, of_folder
from service.types import Usage

WORKER = """
from service.observe.metrics import Metrics
import sys
metrics = Metrics()
metrics.request("/v1/agents/<agent>/invoke", "POST", 200, 0.01)
metrics.runs_active.inc()
metrics.limiter_fallback(sys.argv[1] == "alone")
sys.stdout.write(metrics.render()[0].decode())
"""


def test_everything_counted_is_rendered() -> None:
    metrics = Metrics()
    metrics.request("/x", "GET", 200, 0.02)
    metrics.run_ended("support", "succeeded")
    metrics.model_call("claude", "ok", 0.5)
    metrics.tokens("claude", Usage(10, 5, 3, 0))
    metrics.cost("support", "claude", 1_500)
    metrics.tool_call("calculator", True)
    metrics.cache("support", "hit")
    metrics.rate_limited("runs")
    metrics.limiter_fallback(True)
    metrics.breaker_open("claude", True)
    metrics.login_failed()
    metrics.redis_up(False)
    metrics.runs_active.inc()
    body, media_type = metrics.render()
    lines = body.decode().splitlines()
    for line in (
        'slipway_http_requests_total{method="GET",route="/x",status="200"} 1.0',
        'slipway_http_request_seconds_count{route="/x"} 1.0',
        'slipway_runs_total{agent="support",status="succeeded"} 1.0',
        'slipway_model_calls_total{model="claude",outcome="ok"} 1.0',
        'slipway_tokens_total{kind="cache_read",model="claude"} 3.0',
        'slipway_cost_nano_usd_total{agent="support",model="claude"} 1500.0',
        'slipway_tool_calls_total{ok="true",tool="calculator"} 1.0',
        'slipway_cache_total{agent="support",result="hit"} 1.0',
        'slipway_rate_limited_total{action="runs"} 1.0',
        "slipway_limiter_fallback 1.0",
        'slipway_breaker_open{model="claude"} 1.0',
        "slipway_login_failures_total 1.0",
        "slipway_redis_up 0.0",
        "slipway_runs_active 1.0",
    ):
        assert line in lines, line
    assert media_type.startswith("text/plain")


def test_two_metrics_in_one_process_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.login_failed()
    assert b"slipway_login_failures_total 0.0" in second.render()[0]


def counted(own: Path, mood: str) -> str:
    """What a process of that folder tells after it has counted a request."""
    join = f"from pathlib import Path; from service.observe import folder; folder.join(Path({str(own)!r}))\n"
    command = [sys.executable, "-c", join + WORKER, mood]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_figures_are_of_all_workers(tmp_path: Path) -> None:
    web = tmp_path / "metrics-8000"
    tasks = folder.of_tasks(web)
    counted(web, "alone")
    counted(tasks, "shared")
    said = counted(web, "shared")
    invoked = 'slipway_http_requests_total{method="POST",route="/v1/agents/<agent>/invoke",status="200"}'
    assert f"{invoked} 3.0" in said
    assert "slipway_runs_active 3.0" in said
    assert "slipway_limiter_fallback 1.0" in said
    alone = generate_latest(of_folder(tasks)).decode()
    assert f"{invoked} 1.0" in alone and "slipway_limiter_fallback 0.0" in alone
    folder.clear(tasks)
    assert f"{invoked} 3.0" in counted(web, "shared")


def test_who_was_killed_has_no_runs_under_way(tmp_path: Path) -> None:
    own = folder.of_tasks(tmp_path / "metrics-8000")
    counted(own, "alone")
    folder.forget_the_dead(own)
    told = generate_latest(of_folder(own)).decode()
    assert "slipway_runs_active" not in told and "slipway_http_requests_total" in told
