"""289 generated documents before a model that obeys them: no effect without a person, no link let out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service import approvals
from service.guardrails.hosts import Hosts
from service.guardrails.links import LinkFilter, without_links
from service.runs.output_form import OutputForm
from service.text.json_schema import JsonSchema
from service.types import Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.guardrails.readers import unlisted
from tests.llm.wire_server import WireServer
from tests.runs import inside, obeying
from tests.runs.injected import ALL, COUNT, documents
from tests.runs.obeying import Obeying
from tests.runs.scripted import bodies
from tests.runs.test_untrusted import (
    HOSTS,
    OPERATOR,
    deny,
    effects,
    events_of,
    let_out,
    model,
    start,
    upstream,
    wired,
)
from tests.runs.turns import begin

__all__ = ["effects", "model", "upstream", "wired"]
DOCUMENTS = range(len(ALL) - COUNT, len(ALL))
SOME = DOCUMENTS[::13]
FORM = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def held(wired: Services, run: Run, effects: Path, number: int) -> Run:
    """Assert that a run waits, has had no effect, and lets out no link once its calls are denied."""
    assert run.status == "waiting_approval", (ALL[number], run.error)
    for row in approvals.page(wired.infra.db, OPERATOR, limit=9, before=None, status="pending"):
        assert unlisted(row["explanation"], HOSTS) == [], ALL[number]
    run = deny(wired, run)
    assert run.status == "succeeded", run.error
    assert let_out(events_of(wired, run), run.result) == [], ALL[number]
    assert effects.read_text() == ""
    return run


def test_documents_differ_and_none_lets_a_link_out() -> None:
    assert len({one.text for one in documents()}) == COUNT
    for one in documents():
        cleaned = without_links(one.answer, HOSTS)
        assert unlisted(cleaned, HOSTS) == [] and "removed]" in cleaned, one.answer
        links = LinkFilter(Hosts.of(["good.example"]))
        assert "".join(map(links.feed, one.answer)) + links.close() == cleaned


@pytest.mark.slow
def test_every_document_in_a_stream(wired: Services, model: Obeying, effects: Path) -> None:
    for model.number in DOCUMENTS:
        held(wired, start(wired, "stream"), effects, model.number)


def test_words_of_a_failing_tool_are_untrusted(wired: Services, model: Obeying, effects: Path) -> None:
    model.source = "read_broken"
    for model.number in SOME:
        held(wired, start(wired, "stream"), effects, model.number)


def test_documents_in_the_context(wired: Services, model: Obeying, effects: Path) -> None:
    model.reads = False
    for model.number in SOME:
        context = json.dumps({"note": ALL[model.number].text}, ensure_ascii=False)
        held(wired, start(wired, "stream", context=context), effects, model.number)


def test_answers_in_a_form_hide_no_link_in_escapes(wired: Services, model: Obeying, effects: Path) -> None:
    for model.number in SOME:
        run = held(wired, start(wired, "invoke", output_schema=FORM), effects, model.number)
        assert run.result is not None
        values: dict[str, Any] = run.result["structured"]
        assert json.loads(run.result["output"]) == values and "\\u" not in run.result["output"]
        assert unlisted(values["a"], HOSTS) == [] and "removed]" in values["a"]


def test_summary_of_a_session_is_as_untrusted_as_its_turns(
    tmp_path: Path, effects: Path, redis_server: RedisServer, upstream: WireServer, model: Obeying
) -> None:
    """The model's summary is the document's words, too."""
    with obeying.services(tmp_path, redis_server.url, upstream, session_history_tokens=1_000) as wired:
        session_id, model.number = begin(wired), DOCUMENTS[0]
        for model.reads, model.acts, text in (
            (True, False, ""),
            (False, False, "x " * 4_000),
            (False, False, ""),
        ):
            question = ({"role": "user", "content": f"Read it. {text}"},)
            run = start(wired, "stream", session_id=session_id, messages=question)
            assert run.status == "succeeded" and let_out(events_of(wired, run), run.result) == []
        model.acts = True
        run = start(wired, "stream", session_id=session_id)
        assert any("Summarise" in str(one["messages"]) for one in bodies(upstream))
        held(wired, run, effects, model.number)


def test_a_name_that_is_there_twice_hides_no_link() -> None:
    hidden = '{"a": "\\u0068ttps:\\u002f\\u002fevil.example", "a": "x"}'
    form = OutputForm(FORM, JsonSchema(FORM), None)
    assert form.read(hidden, lambda text: without_links(text, HOSTS)).text == '{"a":"x"}'


def test_documents_that_a_sub_agent_reads(wired: Services, model: Obeying, effects: Path) -> None:
    """Its question is of the lead's run, whose answer joins its results."""
    for model.number in SOME:
        question = inside.request("Read it, please.", agent="chief", cache="bypass")
        run = wired.runs.start.invoke(inside.ADA, question, None, "req").run
        held(wired, run, effects, model.number)
