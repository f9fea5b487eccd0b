"""Traces of a real Slipway, as an OTLP receiver gets them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, children_of, slipway_server, wait_until
from tests.observe.conftest import traced_by
from tests.observe.otlp import Receiver, Sent, tree

INVOKE = "POST /v1/agents/{agent}/invoke"
STRANGER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a purple elephant"


@pytest.fixture
def client(traced: Slipway, model: Model) -> Iterator[httpx2.Client]:
    with closing(traced.shared_client()) as signed_in:
        yield signed_in


def ask(client: httpx2.Client, text: str = "Hello", agent: str = "assistant", **headers: str) -> str:
    body = {"input": text, "cache": "bypass"}
    answer = client.post(f"/v1/agents/{agent}/invoke", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run_id"])


def spans_of(got: Receiver, run_id: str, root: str = INVOKE) -> list[Sent]:
    """Wait for the trace of a run, whose request ends last."""
    wait_until(lambda: root in {span.name for span in got.of_run(run_id)}, "the trace", 30)
    return got.of_run(run_id)


def test_request_run_step_and_model_call_are_one_tree(client: httpx2.Client, got: Receiver) -> None:
    spans = spans_of(got, ask(client))
    chat = ("chat claude-haiku-5-5", [])
    assert tree(spans) == [(INVOKE, [("invoke_agent assistant", [("step answer", [chat])])])]
    (call,) = [span for span in spans if span.name.startswith("chat ")]
    assert call.about["gen_ai.operation.name"] == "chat"
    assert call.about["gen_ai.provider.name"] == "anthropic"
    assert call.about["gen_ai.usage.input_tokens"] > 0 and call.about["gen_ai.usage.output_tokens"] > 0
    assert call.about["slipway.cost_usd"].startswith("0.")
    assert call.resource["service.name"] == "slipway"


def test_tools_of_a_stream_are_spans_and_its_request_ends_last(client: httpx2.Client, got: Receiver) -> None:
    body = {"input": "What is 17% of 2,340?", "cache": "bypass"}
    answer = client.post("/v1/agents/analyst/stream", json=body)
    last = json.loads(answer.text.strip().rpartition("data: ")[2])
    stream = "POST /v1/agents/{agent}/stream"
    ((name, runs),) = tree(spans := spans_of(got, last["run_id"], stream))
    assert name == stream
    ((_, steps),) = runs
    assert ("step act 1", [("execute_tool calculator", [])]) in steps
    request, run = (next(span for span in spans if span.name == one) for one in (stream, runs[0][0]))
    assert request.seconds >= run.seconds


def test_trace_of_a_client_goes_on(client: httpx2.Client, got: Receiver) -> None:
    spans = spans_of(got, ask(client, traceparent=STRANGER))
    (root,) = [span for span in spans if span.name == INVOKE]
    assert (root.trace_id, root.parent_id) == (STRANGER[3:35], STRANGER[36:52])


@pytest.mark.parametrize(
    "wrong",
    [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319D-b7ad6b7169203331-01",
        "x" * 5_000,
    ],
)
def test_header_that_is_no_trace_begins_a_new_one(client: httpx2.Client, got: Receiver, wrong: str) -> None:
    spans = spans_of(got, ask(client, traceparent=wrong))
    (root,) = [span for span in spans if span.name == INVOKE]
    assert root.parent_id == ""


def test_no_content_and_no_secret_is_in_a_trace(client: httpx2.Client, got: Receiver) -> None:
    spans = spans_of(got, ask(client, f"What is {SECRET}?"))
    told = json.dumps([[span.name, span.about] for span in spans])
    assert SECRET not in told and "messages" not in told
    assert client.headers["Authorization"].removeprefix("Bearer ") not in told


def test_lines_of_a_request_have_its_trace(client: httpx2.Client, got: Receiver, traced: Slipway) -> None:
    run_id = ask(client)
    (root,) = [span for span in spans_of(got, run_id) if span.name == INVOKE]
    lines = [json.loads(line) for line in traced.log.read_text().splitlines() if run_id in line]
    assert {line["event"] for line in lines} >= {"request", "llm_call"}
    assert {line["trace_id"] for line in lines} == {root.trace_id}
    (request,) = [line for line in lines if line["event"] == "request"]
    assert request["span_id"] == root.span_id


def test_failed_run_and_failed_call_are_marked(client: httpx2.Client, got: Receiver, model: Model) -> None:
    model.control(fault="400")
    body = {"input": "Hello", "cache": "bypass"}
    answer = client.post("/v1/agents/assistant/invoke", json=body).json()
    model.control()
    spans = {span.name.split()[0]: span for span in spans_of(got, answer["run_id"])}
    assert spans["invoke_agent"].failed and spans["chat"].failed
    assert spans["invoke_agent"].about["error.type"] == answer["code"]


def test_polled_routes_have_no_spans(client: httpx2.Client, got: Receiver) -> None:
    for path in ("/health", "/ready", "/metrics"):
        client.get(path)
    spans_of(got, ask(client))
    assert not {span.about.get("http.route") for span in got.spans} & {"/health", "/ready", "/metrics"}


def test_each_worker_sends_its_own_spans_also_one_that_took_the_place_of_a_killed_one(
    client: httpx2.Client, got: Receiver, traced: Slipway
) -> None:
    os.kill(children_of(traced.child.pid)[0], signal.SIGKILL)

    def told() -> bool:
        client.headers["Connection"] = "close"
        spans_of(got, ask(client))
        return set(children_of(traced.child.pid)) <= {span.resource["process.pid"] for span in got.spans}

    wait_until(told, "spans of both workers", 60)


def test_content_is_told_where_it_is_asked_for_as_guardrails_leave_it(
    tmp_path: Path, redis_server: RedisServer, model: Model, got: Receiver
) -> None:
    settings = traced_by(got, OTEL_CAPTURE_CONTENT="1", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    settings |= {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20abc,x-project=harbor"}
    with slipway_server(tmp_path / "home", redis_server.url, model.url, **settings) as server:
        client = server.client()
        rules = {"guardrails": {"input": {"email": "redact"}, "output": {"email": "mask"}}}
        workspace = client.get("/v1/admin/workspaces").json()["data"][0]["id"]
        changed = client.patch(f"/v1/admin/workspaces/{workspace}", json=rules)
        assert changed.status_code == 200, changed.text
        spans = spans_of(got, ask(client, f"What is {SECRET}? Tell ada@harbor.example, key slp_{'x' * 30}"))
    (step,) = [span for span in spans if span.name == "step answer"]
    asked = json.loads(step.about["gen_ai.input.messages"])
    assert SECRET in asked[-1]["parts"][0]["content"]
    told = json.dumps([span.about for span in spans])
    assert "ada@harbor.example" not in told and "slp_x" not in told
    assert {"authorization": "Basic abc", "x-project": "harbor"}.items() <= got.headers[-1].items()


@pytest.mark.parametrize(("sampler", "sent"), [("traceidratio", 0), ("parentbased_traceidratio", 1)])
def test_stranger_has_nothing_traced_unless_clients_decide(
    tmp_path: Path, redis_server: RedisServer, model: Model, got: Receiver, sampler: str, sent: int
) -> None:
    trace = f"00-{os.urandom(16).hex()}-b7ad6b7169203331-01"
    settings = traced_by(got, OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG="0")
    with slipway_server(tmp_path / "home", redis_server.url, model.url, **settings) as server:
        run_id = ask(server.client(), traceparent=trace)
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if run_id in line]
        assert {line["trace_id"] for line in lines} == {trace[3:35]}  # of what is not recorded too
    assert len([span for span in got.spans if span.trace_id == trace[3:35] and span.name == INVOKE]) == sent


def test_collector_that_is_away_costs_spans_and_no_request(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    settings = {"OTEL_TRACES_SAMPLER_ARG": "1", "WEB_CONCURRENCY": "1", **away}
    with slipway_server(tmp_path / "home", redis_server.url, model.url, **settings) as server:
        client = server.client()
        ask(client)

        def counted() -> Any:
            lines = client.get("/metrics").text.splitlines()
            return any(line.startswith('slipway_spans_total{outcome="failed"}') for line in lines)

        wait_until(counted, "the count of lost spans", 30)
        log = server.log.read_text()
        assert log.count("traces_not_sent") == 1 and "Traceback" not in log
