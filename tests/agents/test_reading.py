"""Pages out of tool results, documents for the model, and quotes that must be verbatim."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.agents.reading import MAX_PAGE, Page, pages_of, verified, with_documents
from service.tools import ToolResult

SEA = Page("Sea", "https://example.org/sea", "The sea is\n  blue.\n\nIt is deep.")


def result(content: Any, *sources: dict[str, str], ok: bool = True) -> ToolResult:
    return ToolResult.of(ok, content if isinstance(content, str) else json.dumps(content), sources=sources)


def test_each_result_of_a_search_is_a_page() -> None:
    rows = [
        {"title": "A", "uri": "a.md", "text": " One. "},
        {"uri": "b.md", "text": "Two."},
        {"text": "Three."},
    ]
    assert pages_of(result({"results": rows})) == [
        Page("A", "a.md", "One."),
        Page("b.md", "b.md", "Two."),
        Page("Untitled", "", "Three."),
    ]


@pytest.mark.parametrize("content", ["A whole page.", '{"results": "none"}', "[1, 2]", "7", '{"text": "x"}'])
def test_any_other_result_is_one_page(content: str) -> None:
    source = {"title": "Home", "uri": "http://other", "quote": ""}
    assert pages_of(result(content, source), "http://here") == [Page("Home", "http://here", content)]
    assert pages_of(result(content)) == [Page("Untitled", "", content)]


@pytest.mark.parametrize(
    "given",
    [
        result("It failed.", ok=False),
        result(""),
        result({"results": []}),
        result({"results": [None, 7, {"title": "A"}, {"text": None}]}),
    ],
)
def test_results_without_text_have_no_pages(given: ToolResult) -> None:
    assert pages_of(given) == []


def test_long_pages_are_cut() -> None:
    [page] = pages_of(result({"results": [{"title": "t" * 999, "text": "x" * (MAX_PAGE + 1)}]}))
    assert (len(page.title), len(page.text)) == (200, MAX_PAGE)


def test_documents_come_before_the_question() -> None:
    turn = with_documents({"role": "user", "content": "How blue?"}, [SEA])
    document, question = turn["content"]
    assert (document["title"], document["source"]["data"], document["citations"]) == (
        "Sea",
        SEA.text,
        {"enabled": True},
    )
    assert question == {"type": "text", "text": "How blue?"}
    assert with_documents({"role": "user", "content": [question]}, [])["content"] == [question]


@pytest.mark.parametrize(
    ("title", "quote", "stands"),
    [
        ("Sea", "The sea is blue.", True),
        ("Sea", "blue.\nIt  is deep", True),
        ("Sea", "the sea is blue", False),
        ("Sea", "The sea … is deep", False),
        ("Sky", "The sea is blue.", False),
        ("Sea", " ", False),
    ],
)
def test_quotes_stand_only_where_they_were_read(title: str, quote: str, stands: bool) -> None:
    source = {"title": title, "uri": "invented", "quote": quote}
    assert verified([source], [SEA]) == ([{**source, "uri": SEA.uri}] if stands else [])


def test_quotes_are_sought_in_every_page_of_their_title() -> None:
    other = SEA._replace(uri="https://example.org/other", text="It is cold.")
    [found] = verified([{"title": "Sea", "uri": "", "quote": "It is cold."}], [SEA, other])
    assert found["uri"] == other.uri
