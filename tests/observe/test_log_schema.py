"""Schema of log lines: what docs/logs.md says, against the code and against the lines of a real Slipway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from scripts import log_fields
from tests.conftest import ROOT, Model, RedisServer, Slipway, slipway_server

PAGE = (ROOT / "docs" / "logs.md").read_text()
SLOW = 2.0  # seconds


@pytest.fixture(scope="module")
def sampled(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """A Slipway that writes no line of a cached answer, unless it is slow."""
    settings = {"WEB_CONCURRENCY": "1", "LOG_HITS_SHARE": "0", "LOG_SLOW_SECONDS": str(SLOW)}
    with slipway_server(scratch / "sampled", redis_server.url, model.url, **settings) as server:
        yield server


def lines_of(server: Slipway, request_id: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request_id]


def documented(section: str) -> set[str]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for first in firsts for name in re.findall(r"`(\w+)`", first)} - {"event"}


def test_section_of_fields_is_up_to_date() -> None:
    assert log_fields.table() in PAGE


def test_every_event_has_a_meaning_and_no_other() -> None:
    assert documented("Events") == set(log_fields.schema())


def test_lines_have_no_other_fields_than_those_documented(sampled: Slipway, model: Model) -> None:
    with closing(sampled.client()) as client:
        for agent, text in (("assistant", "Hello"), ("analyst", "What is 17% of 2,340?")):
            client.post(f"/v1/agents/{agent}/invoke", json={"input": text, "cache": "bypass"})
        client.get("/v1/agents/nobody")
        client.get("/nowhere")
    schema, every = log_fields.schema(), documented("Fields of every line") | {"event"}
    seen = set()
    for text in sampled.log.read_text().splitlines():
        line = json.loads(text) if text.startswith("{") else {}
        if line.get("event") in schema:
            levels, fields = schema[line["event"]]
            assert set(line) <= {*fields, *every}, line
            assert line["level"] in levels
            seen.add(line["event"])
    assert seen >= {"request", "llm_call", "tool_call"}


def test_cached_answers_are_left_out_and_slow_and_refused_requests_are_told_apart(
    sampled: Slipway, model: Model
) -> None:
    def ask(number: str, path: str = "assistant", **body: Any) -> Any:
        return client.post(f"/v1/agents/{path}/invoke", json=body, headers={"X-Request-ID": number})

    with closing(sampled.client()) as client:
        assert ask("log-miss", input="A question of this test").headers["X-Cache"] == "miss"
        assert ask("log-hit", input="A question of this test").headers["X-Cache"] == "hit"
        assert ask("log-refused", input=5).status_code == 422
        model.control(first_token_ms=int(SLOW * 1000) + 500)
        ask("log-slow", input="A slow question", cache="bypass")
        model.control()
    (miss,) = [line for line in lines_of(sampled, "log-miss") if line["event"] == "request"]
    assert miss["outcome"] == "ok" and "share" not in miss
    assert lines_of(sampled, "log-hit") == []
    (refused,) = lines_of(sampled, "log-refused")
    assert (refused["outcome"], refused["level"]) == ("refused", "INFO")
    (slow,) = [line for line in lines_of(sampled, "log-slow") if line["event"] == "request"]
    assert slow["slow"] is True
