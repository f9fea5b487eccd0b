from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from prometheus_client import generate_latest

from service.observe import metric_files
from service.observe.metric_table import ALL, SECTIONS
from service.observe.metric_values import of_folder
from service.observe.metrics import Metrics
from service.observe.observer import ModelAttempt, Settled
from service.types import Usage
from tests.conftest import Slipway
from tests.runs.house import SUPPORT, answered, asked, run_of
from tests.small_disk import fill, small_disk

WORKER = """
from service.observe.metrics import Metrics
import sys
metrics = Metrics()
metrics.request("/v1/agents/<agent>/invoke", "POST", 200, 0.01)
metrics.run(None, "started")
metrics.limiter_fallback(sys.argv[1] == "alone")
print(metrics.render()[0].decode() + "done", flush=True)
sys.stdin.readline()
"""


def test_each_metric_is_listed_once() -> None:
    assert len(ALL) == sum(map(len, SECTIONS.values()))


def test_everything_counted_is_rendered() -> None:
    metrics = Metrics()
    metrics.request("/x", "GET", 200, 0.02)
    run = run_of(asked("Hello", SUPPORT))
    metrics.run(run, "started")
    metrics.run(answered(run), "ended")
    usage = Usage(10, 5, 3, 0)
    left = (("tokens", 0.25),)
    metrics.attempt(ModelAttempt("claude", 4, True, 500.0, usage, None, True, True, "bedrock", 90.0, left))
    metrics.settlement(Settled("hld_1", "support", "claude", usage, 1_500, 2_000, 500, 1_500))
    metrics.context("support", "claude", 0.85)
    metrics.first_text("support", 0.3)
    metrics.escalated("support")
    metrics.approval("support", "denied", 30)
    metrics.tool("calculator", True, 4.0)
    metrics.stream(1)
    metrics.pool("model", 3, 10)
    metrics.cache("support", "hit")
    metrics.rate_limited("runs")
    metrics.limiter_fallback(True)
    metrics.transaction_retried("deadlock")
    metrics.login_failed()
    metrics.redis_up(False)
    body, media_type = metrics.render()
    lines = body.decode().splitlines()
    for line in (
        'slipway_http_requests_total{method="GET",route="/x",status="200"} 1.0',
        'slipway_http_request_seconds_count{route="/x"} 1.0',
        'slipway_runs_total{agent="support",status="succeeded"} 1.0',
        'slipway_run_cost_usd_count{agent="support"} 1.0',
        'slipway_run_first_token_seconds_bucket{agent="support",le="0.5"} 1.0',
        'slipway_escalations_total{agent="support"} 1.0',
        'slipway_model_calls_total{attempt="3+",model="claude",outcome="ok",provider="bedrock"} 1.0',
        'slipway_model_first_token_seconds_bucket{le="0.1",model="claude"} 1.0',
        'slipway_provider_limit_remaining_ratio{kind="tokens",model="claude",provider="bedrock"} 0.25',
        'slipway_context_used_ratio_bucket{agent="support",le="0.8",model="claude"} 0.0',
        'slipway_context_used_ratio_bucket{agent="support",le="0.9",model="claude"} 1.0',
        'slipway_tokens_total{agent="support",kind="cache_read",model="claude"} 3.0',
        'slipway_cost_usd_total{agent="support",model="claude"} 1.5e-06',
        'slipway_saved_usd_total{agent="support",layer="prompt"} 5e-07',
        'slipway_saved_usd_total{agent="support",layer="batch"} 1.5e-06',
        'slipway_tool_calls_total{ok="true",tool="calculator"} 1.0',
        'slipway_tool_call_seconds_sum{tool="calculator"} 0.004',
        'slipway_approvals_total{agent="support",decision="denied"} 1.0',
        'slipway_approval_decision_seconds_bucket{decision="denied",le="60.0"} 1.0',
        "slipway_streams_active 1.0",
        'slipway_pool_used{pool="model"} 3.0',
        'slipway_pool_size{pool="model"} 10.0',
        'slipway_cache_total{agent="support",result="hit"} 1.0',
        'slipway_rate_limited_total{action="runs"} 1.0',
        "slipway_limiter_fallback 1.0",
        'slipway_breaker_open{model="claude",provider="bedrock"} 1.0',
        'slipway_transaction_retries_total{reason="deadlock"} 1.0',
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


@contextmanager
def counting(own: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that counts in that folder. It may wait for its standard input, and must end well."""
    join = (
        f"from pathlib import Path; from service.observe.metric_files import join; join(Path({str(own)!r}))\n"
    )
    command = [sys.executable, "-c", join + script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.communicate(timeout=60)
    assert child.returncode == 0, child.returncode


@contextmanager
def counted(own: Path, mood: str) -> Iterator[str]:
    """Start a process that counts a request in the folder, for the length of the block."""
    with counting(own, WORKER, mood) as child:
        assert child.stdout is not None
        yield "".join(iter(child.stdout.readline, "done\n"))


INVOKED = 'slipway_http_requests_total{method="POST",route="/v1/agents/<agent>/invoke",status="200"}'


def test_figures_are_of_all_workers(tmp_path: Path) -> None:
    web = tmp_path / "metrics-8000"
    tasks = metric_files.of_tasks(web)
    with counted(web, "alone"), counted(tasks, "shared"), counted(web, "shared") as said:
        assert f"{INVOKED} 3.0" in said
        assert "slipway_runs_active 3.0" in said
        assert "slipway_limiter_fallback 1.0" in said
        alone = generate_latest(of_folder(tasks)).decode()
        assert f"{INVOKED} 1.0" in alone and "slipway_limiter_fallback 0.0" in alone
    metric_files.clear(tasks)
    assert len(list(tasks.glob("*.db"))) == len(metric_files.SIZES)  # a successor needs no new room
    with counted(web, "shared") as said:
        assert f"{INVOKED} 3.0" in said


def test_gauges_of_a_killed_process_are_dropped(tmp_path: Path) -> None:
    own = metric_files.of_tasks(tmp_path / "metrics-8000")
    with counted(own, "alone"):
        metric_files.clear(own)
        metric_files.forget_the_dead(own)
        assert "slipway_runs_active 1.0" in generate_latest(of_folder(own)).decode()
    metric_files.forget_the_dead(own)
    told = generate_latest(of_folder(own)).decode()
    assert "slipway_runs_active" not in told and "slipway_http_requests_total" in told


EVERY_LABEL = """
import sys
from service.observe.metric_table import ALL
from service.observe.metrics import Metrics
metrics = Metrics()
print("ready", flush=True)
sys.stdin.readline()
for name, value in metrics.counted.items():
    count = {"counter": "inc", "gauge": "set", "histogram": "observe"}[ALL[name].kind]
    labels = ALL[name].labels
    for n in range(1100):
        one = value(*(f"{n:0100}" for _ in labels)) if labels else value
        getattr(one, count)(1)
sys.stdout.write(metrics.render()[0].decode())
"""


def everything_counted(own: Path, before: Callable[[], object] = lambda: None) -> str:
    """Render the metrics of a process with too many label sets; `before` runs first."""
    with counting(own, EVERY_LABEL) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before()
        print("go", file=child.stdin, flush=True)
        return "".join(iter(child.stdout.readline, ""))


def test_no_file_has_to_grow(tmp_path: Path) -> None:
    own = tmp_path / "metrics-8000"
    told = everything_counted(own)
    found = {file.stem.rpartition("_")[0]: file.stat().st_size for file in own.glob("*.db")}
    assert found == metric_files.SIZES
    assert 'slipway_http_requests_total{method="(other)",route="(other)",status="(other)"} 100.0' in told


def test_a_full_disk_does_not_end_a_process_that_counts(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        everything_counted(disk / "metrics-8000", lambda: fill(disk))


def test_without_room_for_its_files_a_process_counts_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        own = disk / "metrics-8000"
        own.mkdir()
        fill(disk)
        with counted(own, "alone"):
            pass
        assert [file.name for file in own.glob("*.db") if file.stat().st_size] == []


def test_a_process_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    own = tmp_path / "metrics-8000"
    for _ in range(5):
        with counted(own, "shared") as said:
            pass
    assert f"{INVOKED} 5.0" in said and "slipway_runs_active 1.0" in said
    assert len(list(own.glob("*.db"))) == len(metric_files.SIZES)


def test_any_word_for_a_method_is_one_label() -> None:
    metrics = Metrics()
    for word in ("BREW", "PROPFIND", "X" * 5000):
        metrics.request("/x", word, 405, 0.01)
    told = metrics.render()[0].decode()
    assert 'slipway_http_requests_total{method="(other)",route="/x",status="405"} 3.0' in told
    assert "BREW" not in told


def test_metrics_of_all_workers(slipway: Slipway, client: httpx2.Client) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = [
            line
            for line in lines
            if line.startswith("slipway_http_requests_total") and "/openapi.json" in line
        ]
        return float(line.rpartition(" ")[2])

    client.get("/openapi.json")
    before = counted()
    for _ in range(8):  # whichever worker takes them
        client.get("/openapi.json")
    assert {counted() for _ in range(4)} == {before + 8}
