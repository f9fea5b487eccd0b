"""Runs whose texts are more than guardrails read: refused where they stand, with nothing sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import GuardrailRefused
from service.guardrails import effort
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import guarded, inside, scripted

LONG = "a@ " * 400
FEW = 3_000  # units


@pytest.fixture
def wired(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    upstream.otherwise = scripted.message(scripted.says(LONG))
    with guarded.services(tmp_path, redis_server.url, upstream, guarded.BOTH) as wired:
        monkeypatch.setattr(effort, "MOST", FEW)
        yield wired


def test_question_is_refused_before_the_model_is_asked(wired: Services, upstream: WireServer) -> None:
    with pytest.raises(GuardrailRefused) as raised:
        inside.ask(wired, LONG)
    assert raised.value.extra == {"where": "input", "kind": "length"} and not upstream.requests


def test_many_characters_are_refused_at_the_door(wired: Services, upstream: WireServer) -> None:
    with pytest.raises(GuardrailRefused):
        inside.ask(wired, "a " * FEW)
    assert not upstream.requests


def test_answer_ends_as_a_refused_one(wired: Services) -> None:
    run = inside.ask(wired, "Hello?")
    assert run.status == "failed" and run.error is not None and (run.result or {})["output"] == ""
    assert (run.error["code"], run.error["where"], run.error["kind"]) == (
        "guardrail_refused",
        "output",
        "length",
    )
