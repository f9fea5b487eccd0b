"""Forced calls of the client's tools: by models that take them, without thinking, and of these tools only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import Invalid
from service.llm.forced_choice import taking_forced
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import scripted
from tests.runs.scripted import call, calls
from tests.runs.test_client_tools import PARIS, ask

MODELS = {
    "model_simple": "claude-haiku-5-5",
    "model_medium": "claude-sonnet-5-5",
    "model_complex": "claude-opus-5-5",
}
MEDIUM = "description: A test agent.\npattern: single\ntier: {default: medium, ask: false}\neffort: high\n"


def test_the_model_must_call_and_does_not_think(acting: Services, upstream: WireServer) -> None:
    upstream.script = [calls({**PARIS, "id": "toolu_1"})]
    run = ask(acting, client_choice="any", effort="high")
    assert run.result is not None and [one["name"] for one in run.result["client_calls"]] == ["weather"]
    (body,) = scripted.bodies(upstream)
    assert [tool["name"] for tool in body["tools"]] == ["weather"]
    assert (body["tool_choice"], body["thinking"]) == ({"type": "any"}, {"type": "disabled"})
    assert "output_config" not in body


def test_a_run_of_one_step_can_be_forced(acting: Services, upstream: WireServer) -> None:
    """The last step of a run may call no tool of the agent, which would need another; the client's ends it."""
    upstream.script = [calls({**PARIS, "id": "toolu_1"})]
    run = ask(acting, client_choice="any", max_steps=1)
    assert run.result is not None and run.result["stop_reason"] == "tool_use"


def test_thinking_of_earlier_steps_is_left_out(acting: Services, upstream: WireServer) -> None:
    unreadable = {**PARIS, "id": "toolu_1", "input": ["Paris"]}
    upstream.script = [calls(scripted.THOUGHT, unreadable), calls({**PARIS, "id": "toolu_2"})]
    ask(acting, client_choice="any")
    turns = scripted.bodies(upstream)[-1]["messages"]
    assert [block["type"] for block in turns[1]["content"]] == ["tool_use"]


def test_without_force_nothing_changes(acting: Services, upstream: WireServer) -> None:
    upstream.script = [calls(call("echo", {"text": "a"}, "toolu_0")), calls({**PARIS, "id": "toolu_1"})]
    ask(acting)
    assert all("tool_choice" not in body and "thinking" not in body for body in scripted.bodies(upstream))


def test_first_model_that_takes_it_is_asked(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    with scripted.services(tmp_path, redis_server.url, upstream, MEDIUM, **MODELS) as wired:
        upstream.script = [calls({**PARIS, "id": "toolu_1"}), calls({**PARIS, "id": "toolu_2"})]
        ask(wired, client_choice="any", tier="medium")
        ask(wired, tier="medium")
        asked = [body["model"] for body in scripted.bodies(upstream)]
        assert asked == ["claude-haiku-5-5", "claude-sonnet-5-5"]


def test_agent_without_such_a_model_refuses(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    spec = MEDIUM.replace("default: medium", "default: medium, floor: medium")
    with scripted.services(tmp_path, redis_server.url, upstream, spec, **MODELS) as wired:
        with pytest.raises(Invalid) as refused:
            ask(wired, client_choice="any")
        assert refused.value.errors[0]["pointer"] == "/tool_choice"
        assert not upstream.script and not scripted.bodies(upstream)


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-haiku-5-5", True),
        ("offline-claude-haiku-4-5-20251001", True),
        ("claude-opus-4-8", True),
        ("claude-sonnet-5", True),
        ("claude-sonnet-5-5", False),
        ("claude-opus-5-5", False),
        ("claude-fable-5-2", False),
        ("claude-haiku-6", False),
    ],
)
def test_models_that_take_a_forced_call(model: str, takes: Any) -> None:
    assert bool(taking_forced([model])) is takes
