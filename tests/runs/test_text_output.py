"""Text output: every delta of a run passes one point, whichever thread brings it."""

from __future__ import annotations

import ast
from typing import Any, cast

from service.guardrails.hosts import Hosts
from service.guardrails.in_force import NOTHING
from service.guardrails.keyed_vault import KeyedVault
from service.llm.client import ModelReply
from service.observe.observer import Observer
from service.runs.journal import Journal
from service.runs.replay import Replay
from service.runs.run_rails import RunRails
from service.runs.text_output import TextOutput
from service.store.database import Database
from service.types import Event, RunEvent, Usage
from tests.conftest import ROOT
from tests.runs.house import asked, run_of


class WithoutDatabase:
    def transact(self, work: Any, **_: Any) -> None: ...


def output_of(published: list[RunEvent], replay: Replay | None = None) -> tuple[TextOutput, Journal]:
    database = cast(Database, WithoutDatabase())
    journal = Journal(
        database, run_of(asked("Hello")), published.extend, opening=lambda tx: True, replay=replay
    )
    rails = RunRails(run_of(asked("Hello")), NOTHING, KeyedVault(b""), journal, Observer())
    return TextOutput(journal, rails), journal


def test_delta_is_sanitised_and_published_at_once() -> None:
    published: list[RunEvent] = []
    text, _ = output_of(published)
    assert text.write("half \ud83d") == published == [RunEvent(Event.TEXT_DELTA, {"text": "half \ufffd"}, 1)]
    assert text.deltas == 1


def test_a_whole_text_is_published_after_the_commit_that_keeps_its_step() -> None:
    published: list[RunEvent] = []
    text, journal = output_of(published)
    text.write_after_commit("Good day.")
    assert (published, text.deltas) == ([], 0)
    journal.commit()
    assert [event.data for event in published] == [{"text": "Good day."}]


def test_replayed_delta_counts_and_is_not_published_again() -> None:
    published: list[RunEvent] = []
    text, _ = output_of(published, Replay([RunEvent(Event.TEXT_DELTA, {"text": "Good "}, 1)], 0))
    assert text.write("Good ") == []
    assert text.deltas == 1 and published == []


def test_no_other_module_publishes_text() -> None:
    publishing = []
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
                "publish",
                "publish_after_commit",
            )
            if called and any(ast.unparse(each) == "Event.TEXT_DELTA" for each in node.args):  # type: ignore[attr-defined]
                publishing.append(path.name)
    assert set(publishing) == {"text_output.py"}


def test_what_may_become_a_link_is_held_back_until_the_word_or_the_reply_ends() -> None:
    published: list[RunEvent] = []
    text, _ = output_of(published)
    text.begin(Hosts.of(["good.example"]))
    assert [event.data["text"] for event in text.write("See https://evil")] == ["See "]
    assert text.write(".io/x and https://good") == [
        RunEvent(Event.TEXT_DELTA, {"text": "[link removed] and "}, 2)
    ]
    assert [event.data["text"] for event in text.write(".example/y") + text.end()] == [
        "https://good.example/y"
    ]
    assert text.deltas == 3


def test_reply_is_cleaned_as_its_stream_and_clients_are_told_once() -> None:
    published: list[RunEvent] = []
    text, journal = output_of(published)
    text.begin(Hosts())
    blocks = [
        {"type": "text", "text": "See https:"},
        {"type": "tool_use"},
        {"type": "text", "text": "//evil.io."},
    ]
    cleaned = text.cleaned(ModelReply("m", blocks, "end_turn", Usage()), 4)
    assert cleaned.text == "See [link removed]." and cleaned.content[1] == {"type": "tool_use"}
    journal.commit()
    acted = {"where": "output", "kind": "links", "action": "removed", "count": 1}
    assert [(event.name, event.data) for event in published] == [(Event.GUARDRAIL, {"step": 4, **acted})]
    plain = ModelReply("m", [{"type": "text", "text": "Good day."}], "end_turn", Usage())
    assert text.cleaned(plain, 5) is plain
