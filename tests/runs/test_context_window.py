"""Context window over several conversations of one run, and over one in which the user speaks again."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest

from service.agents.pattern import Events, Prompt
from service.errors import PromptTooLong
from service.llm.client import ModelReply, ModelRequest
from service.runs.context_window import ContextWindow
from service.types import RunEvent, Usage
from tests.runs.test_compaction import turn

WINDOW = 4_000  # tokens
PER_TOKEN = 4  # bytes, in this model's reports


class Talk:
    """A model that answers and takes notes at once; `sent` are the messages of its calls."""

    def __init__(self) -> None:
        self.window = ContextWindow(WINDOW, self.take_notes)
        self.sent: list[Any] = []
        self.notes: list[str] = []

    def take_notes(self, name: str, prompt: Prompt, *, counts: bool) -> Events[ModelReply]:
        yield from ()
        self.notes.append(f"{prompt.messages[0]['content']}")
        assert (name, counts) == (f"compact {len(self.notes)}", False)
        return reply(f"Note {len(self.notes)}.", Usage())

    def ask(self, messages: list[Any]) -> Any:
        request = ModelRequest("m", messages, 100)
        return end_of(self.window.ask(request, self.call))[0].messages

    def call(self, request: ModelRequest) -> Events[ModelReply]:
        yield from ()
        self.sent.append(request.messages)
        return reply("Well.", Usage(input_tokens=len(json.dumps(request.messages)) // PER_TOKEN))


def reply(text: str, usage: Usage) -> ModelReply:
    return ModelReply("m", [{"type": "text", "text": text}], "end_turn", usage)


def end_of(steps: Generator[RunEvent, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def question(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def ids(messages: list[Any]) -> list[str]:
    blocks = [block for one in messages if isinstance(one["content"], list) for block in one["content"]]
    return [block["id"] for block in blocks if block["type"] == "tool_use"]


def grown(talk: Talk, messages: list[Any], count: int, first: int = 0) -> list[Any]:
    """Ask after each of so many turns, as a pattern does; return what was sent last."""
    sent = []
    for number in range(first, first + count):
        messages += turn(number, "x" * 1_500)
        sent = talk.ask(messages)
        assert len(json.dumps(sent)) < WINDOW * PER_TOKEN
    return list(sent)


def test_compacted_conversation_stays_compacted_and_grows() -> None:
    talk, messages = Talk(), [question("What?")]
    grown(talk, messages, 10)
    before = len(talk.notes)
    sent = grown(talk, messages, 1, first=10)
    assert before >= 1 and len(talk.notes) == before and ids(sent)[-1] == "toolu_10"
    assert len(messages) == 23  # the pattern's own list is whole


def test_user_who_speaks_again_is_sent_once_and_no_call_twice() -> None:
    talk, messages = Talk(), [question("What?")]
    grown(talk, messages, 10)
    messages += [{"role": "assistant", "content": "It is 7."}, question("Check it.")]
    sent = talk.ask(messages)
    assert sent[-2:] == messages[-2:] and [one["role"] for one in sent] == ["user", "assistant"] * (
        len(sent) // 2
    ) + ["user"]
    assert len(ids(sent)) == len(set(ids(sent))) < 10


def test_conversations_of_one_run_have_notes_of_their_own() -> None:
    talk, first, second = Talk(), [question("First?")], [question("Second?")]
    for number in range(0, 12, 2):
        grown(talk, first, 2, first=number)
        grown(talk, second, 2, first=100 + number)
    one, other = talk.ask(first), talk.ask(second)
    assert all(text.count("First?") != text.count("Second?") for text in talk.notes) and len(talk.notes) >= 2
    assert not set(ids(one)) & set(ids(other))
    assert "First?" in json.dumps(one) and "Second?" not in json.dumps(one)


def test_conversation_that_fits_is_sent_unchanged() -> None:
    talk = Talk()
    for messages in ([question("What?")], [question("What?"), *turn(1)], [question("x" * 100_000)]):
        assert list(talk.ask(messages)) == messages
    assert talk.notes == []


def test_one_refusal_is_answered_with_a_shorter_prompt_and_a_second_is_raised() -> None:
    talk, messages = Talk(), [question("What?"), *turn(1, "x" * 4_000), *turn(2, "x" * 4_000)]
    sizes = []

    def refuses(times: int) -> Callable[[ModelRequest], Events[ModelReply]]:
        def call(request: ModelRequest) -> Events[ModelReply]:
            sizes.append(len(json.dumps(request.messages)))
            if len(sizes) <= times:
                raise PromptTooLong
            return (yield from talk.call(request))

        return call

    end_of(talk.window.ask(ModelRequest("m", messages, 100), refuses(1)))
    assert len(sizes) == 2 and sizes[1] < sizes[0] * 0.8
    sizes.clear()
    with pytest.raises(PromptTooLong):
        end_of(Talk().window.ask(ModelRequest("m", messages, 100), refuses(9)))
    assert len(sizes) == 2
