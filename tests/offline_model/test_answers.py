"""Answers of the offline model: from documents, with exact citations, tools or JSON; deterministic."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

HANDBOOK = (
    "# Refunds\n\nAnnual plans – ✓ – can be refunded within 30 days. Monthly\nplans cannot be refunded.\n\n"
    "# Support\n\n- Support answers within four hours.\n- The office is in Lisbon.\n"
)
CALCULATOR = {
    "name": "calculator",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
}
SEARCH = {
    "name": "search_knowledge",
    "input_schema": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["query"],
    },
}
APPEND = {
    "name": "append_line",
    "input_schema": {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]},
}
PASSAGES = json.dumps(
    {
        "results": [
            {
                "title": "Refund policy",
                "uri": "kb://refunds",
                "text": "Annual plans can be refunded in 30 days.",
            }
        ]
    }
)


def document(cited: bool = True, **source: Any) -> dict[str, Any]:
    source = source or {"type": "text", "media_type": "text/plain", "data": HANDBOOK}
    return {"type": "document", "title": "Handbook", "source": source, "citations": {"enabled": cited}}


def with_material(block: dict[str, Any], question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [block, {"type": "text", "text": question}]}]


def run(offline: Any, question: str, tools: list[Any], give: Any, most: int = 20) -> tuple[str, list[Any]]:
    """The tool loop a client would run: (final text, all calls). `give` maps a call to its result."""
    messages: list[Any] = [{"role": "user", "content": question}]
    calls: list[Any] = []
    for _ in range(most):
        answer = offline.ask(messages, tools=tools)
        if answer.stop_reason != "tool_use":
            return answer.content[0].text, calls
        uses = [block for block in answer.content if block.type == "tool_use"]
        calls += uses
        results = [{"type": "tool_result", "tool_use_id": use.id, **give(use)} for use in uses]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    raise AssertionError("never came to an answer")


def test_question_that_fits_no_sentence_is_answered_by_the_title(offline: Any) -> None:
    text = "# Hours\n\nThe desk works from 8 to 20. Support sits on the second floor."
    named = {**document(type="text", media_type="text/plain", data=text), "title": "Support hours"}
    blocks = offline.ask(with_material(named, "When may colleagues telephone support abroad?")).content
    said = "".join(block.text for block in blocks)
    assert "Support sits on the second floor." in said


@pytest.mark.parametrize("question", ["Can annual plans be refunded?", "How fast does support answer?"])
def test_char_citations_are_exact(offline: Any, question: str) -> None:
    blocks = offline.ask(with_material(document(), question)).content
    cited = [c for block in blocks for c in block.citations or ()]
    assert cited
    for citation in cited:
        assert HANDBOOK[citation.start_char_index : citation.end_char_index] == citation.cited_text
        assert (citation.document_index, citation.document_title) == (0, "Handbook")


def test_citations_are_streamed(offline: Any) -> None:
    messages = with_material(document(), "Can annual plans be refunded?")
    whole = offline.ask(messages)
    with offline.client.messages.stream(model="claude-sonnet-5", max_tokens=500, messages=messages) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert "citation" in kinds
    assert [b.text for b in final.content] == [b.text for b in whole.content]
    assert [b.citations or None for b in final.content] == [b.citations or None for b in whole.content]


def test_content_block_and_search_result_citations(offline: Any) -> None:
    parts = [
        {"type": "text", "text": "The sky is blue."},
        {"type": "text", "text": "Plans are refunded within 30 days."},
    ]
    found = offline.ask(with_material(document(type="content", content=parts), "When are plans refunded?"))
    cited = found.content[-1].citations[0]
    assert (cited.type, cited.start_block_index, cited.end_block_index) == ("content_block_location", 1, 2)
    block = {
        "type": "search_result",
        "source": "kb://1",
        "title": "KB",
        "content": parts,
        "citations": {"enabled": True},
    }
    cited = offline.ask(with_material(block, "When are plans refunded?")).content[-1].citations[0]
    assert (cited.type, cited.source, cited.cited_text) == (
        "search_result_location",
        "kb://1",
        parts[1]["text"],
    )
    assert (cited.start_block_index, cited.end_block_index, cited.search_result_index) == (1, 2, 0)


def test_uncited_document_is_quoted_by_title(offline: Any) -> None:
    answer = offline.ask(with_material(document(cited=False), "Where is the office?"))
    assert answer.content[0].citations is None
    assert answer.content[0].text == "According to “Handbook”: “The office is in Lisbon.”"


def test_says_so_when_the_material_has_no_answer(offline: Any) -> None:
    text = offline.text(with_material(document(), "What is the capital of France?"))
    assert "found nothing" in text and "offline model" in text


def test_passage_under_a_matching_heading_is_found(offline: Any) -> None:
    text = "# Parking\n\nUse the yard behind the mill.\n\n# Lunch\n\nBring your own."
    source = {"type": "text", "media_type": "text/plain", "data": text}
    assert "the yard behind" in offline.text(with_material(document(**source), "Is there parking?"))


def test_calculator_round_trip(offline: Any) -> None:
    text, calls = run(
        offline, "What is 17% of 2,340?", [CALCULATOR, SEARCH], lambda _: {"content": '{"result": 397.8}'}
    )
    assert [(c.name, c.input) for c in calls] == [("calculator", {"expression": "2340*17/100"})]
    assert text == "17% of 2,340 is 397.8."


def test_a_question_that_needs_both_gets_both(offline: Any) -> None:
    def give(use: Any) -> dict[str, Any]:
        return {"content": "36" if use.name == "calculator" else PASSAGES}

    question = "What is the refund window for annual plans and what is 12*3?"
    text, calls = run(offline, question, [CALCULATOR, SEARCH], give)
    assert {c.name: c.input for c in calls} == {
        "calculator": {"expression": "12*3"},
        "search_knowledge": {"query": "What is the refund window for annual plans"},
    }
    assert (
        "12*3 is 36." in text
        and "Annual plans can be refunded in 30 days." in text
        and "kb://refunds" in text
    )


def test_ten_steps(offline: Any) -> None:
    text, calls = run(offline, "Call the append_line tool 10 times", [APPEND], lambda _: {"content": "done"})
    assert len(calls) == 10 and len({c.id for c in calls}) == 10
    assert len({c.input["line"] for c in calls}) == 10
    assert "10 times" in text and "done" in text


def test_answer_names_a_failed_tool(offline: Any) -> None:
    text, _ = run(offline, "What is 2 + 2?", [CALCULATOR], lambda _: {"content": "boom", "is_error": True})
    assert "error" in text and "boom" in text


def test_tool_choice_none_and_small_talk(offline: Any) -> None:
    assert (
        offline.ask("What is 2 + 2?", tools=[CALCULATOR], tool_choice={"type": "none"}).stop_reason
        == "end_turn"
    )
    assert offline.ask("Hello!", tools=[CALCULATOR, SEARCH]).stop_reason == "end_turn"


def test_tool_input_is_streamed(offline: Any) -> None:
    events = list(offline.ask("What is 12 * (3+4)?", tools=[CALCULATOR], stream=True))
    parts = [e.delta.partial_json for e in events if e.type == "content_block_delta"]
    assert len(parts) >= 2 and json.loads("".join(parts)) == {"expression": "12 * (3+4)"}
    assert events[-2].delta.stop_reason == "tool_use"


SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["technical", "billing", "other"]},
        "reason": {"type": "string", "maxLength": 60},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "urgent": {"type": "boolean"},
        "steps": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/step"}},
    },
    "required": ["label", "reason", "confidence", "urgent", "steps"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]}},
}


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("I was charged twice on my invoice", "billing"),
        ("The app crashes with errors", "technical"),
        ("Tell me a joke", "other"),
    ],
)
def test_json_schema(offline: Any, question: str, label: str) -> None:
    system = (
        "Classify the message.\n- billing: invoices, refunds, charges\n- technical: bugs, errors, crashes\n"
    )
    options = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    value = json.loads(offline.text(question, system=system, **options))
    jsonschema_rs.validate(SCHEMA, value)
    assert value["label"] == label


def test_one_of_the_listed_words(offline: Any) -> None:
    system = "Answer with exactly one word: technical, billing or other.\n- billing: invoices, charges"
    assert offline.text("I was charged twice", system=system) == "billing"


def test_memory(offline: Any) -> None:
    talk = [
        {"role": "user", "content": "Hi, my name is Ada. My favourite colour is teal."},
        {"role": "assistant", "content": "Hello."},
    ]
    assert "Ada" in offline.text([*talk, {"role": "user", "content": "What is my name?"}])
    assert "teal" in offline.text([*talk, {"role": "user", "content": "What is my favourite colour?"}])


def test_summary_quotes_the_conversation(offline: Any) -> None:
    text = offline.text("Summarise this: The cat sat. The cat ate a mouse. Dogs bark. The cat met the mouse.")
    assert text.startswith("Summary: ") and "The cat ate a mouse." in text


def test_greeting_is_honest(offline: Any) -> None:
    assert "offline model" in offline.text("Hello")


def test_the_same_request_gets_the_same_answer(offline: Any) -> None:
    messages = with_material(document(), "Can annual plans be refunded?")
    first, second = (offline.ask(messages, tools=[APPEND]).to_dict() for _ in range(2))
    assert first.pop("id") != second.pop("id")
    assert first == second


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3," * 50_000,
        "<context" * 50_000,
        "<context>" * 20_000 + "</a>",
        "no mark " * 40_000,
        "\n" * 200_000 + "x",
    ],
    ids=["digits", "open", "unclosed", "long", "blank"],
)
def test_pathological_texts_are_answered_in_time(offline: Any, text: str) -> None:
    """Each of these once took minutes in a regular expression; the client gives up after ten seconds."""
    assert offline.ask(
        text, tools=[CALCULATOR, SEARCH], system="Answer with one of: a or b." + text
    ).stop_reason


def test_question_inside_tags(offline: Any) -> None:
    text = f"<context>{HANDBOOK}</context>\n<question>Where is the office?</question>"
    assert "The office is in Lisbon." in offline.text(text)
