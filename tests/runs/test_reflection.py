"""Pattern `reflection`: draft, critique, revision; only the text that stands in the end is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.types import Event
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, WireServer
from tests.runs.killed import assert_whole, told_with_a_loss
from tests.runs.scripted import ask, bodies, holds, kept, message, says, services, stream_of, tell, text_of

SPEC = "description: A writer.\npattern: reflection\nlimits: {steps: 5, seconds: 20}\ntier: {ask: false}\n"
Handler = Callable[[Exchange], None]


def critique(*points: str, good: bool = False) -> Handler:
    return message(says(json.dumps({"good": good, "points": list(points)})))


DRAFT, GOOD = message(says("A first draft.")), critique(good=True)
ONCE = [DRAFT, critique("Shorter."), message(says("Draft.")), GOOD]  # one revision, which is good
TWICE = [
    DRAFT,
    critique("Shorter."),
    message(says("A draft.")),
    critique("Even shorter."),
    stream_of("Dra", "ft."),
]


@pytest.fixture
def writing(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    """The agent `probe`, which reflects, over either database."""
    with services(tmp_path, redis_server.url, upstream, SPEC, database_url=url) as wired:
        yield wired


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    with services(tmp_path, redis_server.url, upstream, SPEC) as made:
        yield made


def output(run: Any) -> str:
    assert run.status == "succeeded", run.error
    return str(run.result["output"])


def test_good_draft_is_told_without_another_call(writing: Services, upstream: WireServer) -> None:
    upstream.script += [DRAFT, GOOD]
    events = tell(writing)
    assert (text_of(events), events[-1].data["output"]) == ("A first draft.", "A first draft.")
    assert (len(upstream.requests), events[-1].data["steps"], holds(writing)) == (2, 2, 0)
    assert [event.name for event in events if event.name is Event.TEXT_DELTA] == [Event.TEXT_DELTA]


def test_only_the_revision_is_told(wired: Services, upstream: WireServer) -> None:
    upstream.script += ONCE
    events = tell(wired)
    assert text_of(events) == events[-1].data["output"] == "Draft."
    assert [body.get("stream") for body in bodies(upstream)] == [False] * 4


def test_last_revision_is_streamed(wired: Services, upstream: WireServer) -> None:
    upstream.script += TWICE
    events = tell(wired)
    assert text_of(events) == events[-1].data["output"] == "Draft."
    assert sum(event.name is Event.TEXT_DELTA for event in events) == 2
    assert [body["stream"] for body in bodies(upstream)] == [False] * 4 + [True]


def test_revision_is_asked_for_with_draft_and_points(wired: Services, upstream: WireServer) -> None:
    upstream.script += [DRAFT, critique("Shorter.", "No adverbs."), message(says("Draft.")), GOOD]
    run = ask(wired)
    assert output(run) == "Draft."
    first, second, third, _ = bodies(upstream)
    (system,) = {body["system"] for body in (first, second, third)}
    assert system.endswith("\n\nBe good.")
    draft = {"role": "assistant", "content": [says("A first draft.")]}
    for later in (second, third):
        assert later["messages"][:-2] == first["messages"] and later["messages"][-2] == draft
    assert third["messages"][-1]["content"].endswith("\n- Shorter.\n- No adverbs.")
    names = [row["name"] for row in kept(wired, run)]
    assert names == ["draft", "critique 1", "revise 1", "critique 2"]


@pytest.mark.parametrize(
    "reply",
    [
        message(says("Fine, I think.")),
        message(says('{"good": false, "points": ["Shorter."]}'), stop="max_tokens"),
        message(says('{"good": false, "points": ["Shorter."]}'), stop="refusal"),
        message(says('{"good": "perhaps", "points": []}')),
        message(says('{"good": false, "points": "Shorter."}')),
        message(says('["Shorter."]')),
        critique(),
        critique("Shorter.", good=True),
        message(),
    ],
)
def test_without_a_readable_critique_the_draft_stands(
    wired: Services, upstream: WireServer, reply: Handler
) -> None:
    upstream.script += [DRAFT, reply]
    assert (output(ask(wired)), len(upstream.requests)) == ("A first draft.", 2)


def test_points_of_a_revision_are_bounded(wired: Services, upstream: WireServer) -> None:
    upstream.script += [DRAFT, critique(*map(str, range(99))), message(says("Draft.")), GOOD]
    assert output(ask(wired)) == "Draft."
    assert bodies(upstream)[2]["messages"][-1]["content"].count("\n- ") == 10


@pytest.mark.parametrize("steps, calls", [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)])
def test_no_more_calls_than_the_caller_allows(
    wired: Services, upstream: WireServer, steps: int, calls: int
) -> None:
    upstream.script += [*TWICE[: calls - 1], stream_of("The ", "end.")]
    events = tell(wired, max_steps=steps)
    assert (text_of(events), events[-1].data["output"]) == ("The end.", "The end.")
    assert (len(upstream.requests), bodies(upstream)[-1]["stream"]) == (calls, True)


def test_refused_draft_is_told_to_nobody(wired: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says("I would rather"), stop="refusal"))
    events = tell(wired)
    assert (events[-1].data["error"]["code"], text_of(events)) == ("model_refused", "")
    assert len(upstream.requests) == 1


def test_empty_draft_has_no_critique(wired: Services, upstream: WireServer) -> None:
    upstream.script.append(message(stop="max_tokens"))
    events = tell(wired)
    assert (events[-1].name, events[-1].data["output"], text_of(events)) == (Event.RUN_COMPLETED, "", "")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "script", [[DRAFT, GOOD], ONCE, TWICE], ids=["good draft", "one round", "two rounds"]
)
def test_worker_lost_within_any_step_leaves_one_whole_answer(
    writing: Services, upstream: WireServer, script: list[Handler]
) -> None:
    upstream.otherwise = again(script)
    for step in range(1, len(script) + 1):
        events = told_with_a_loss(writing, upstream, step)
        assert_whole(events)
        assert text_of(events) == ("A first draft." if len(script) == 2 else "Draft.")
        assert sum(event.name is Event.STEP_STARTED for event in events) == len(script)
    assert holds(writing) == 0


def again(script: list[Handler]) -> Handler:
    """Answer by what the request continues, so that a repeated step gets its own reply."""

    def answer(exchange: Exchange) -> None:
        body = exchange.json
        asks_critique = "output_config" in body
        last = body["messages"][-1]["content"]
        if len(body["messages"]) == 1:
            script[0](exchange)
        elif asks_critique:
            first = body["messages"][-2]["content"][0]["text"] == "A first draft."
            script[1 if first else 3](exchange)
        else:
            script[2 if "- Shorter." in last else 4](exchange)

    return answer
