"""The built-in tools, called as a run calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.knowledge import Knowledge
from service.tools import ToolContext, ToolRunner
from service.tools.sources.builtin import BUILTINS, calculator, search_knowledge

MakeContext = Callable[..., ToolContext]


@pytest.fixture
def knowledge(tmp_path: Path) -> Knowledge:
    for category, fact in (("billing", "Refunds take 5 days."), ("technical", "Restart the refund robot.")):
        (tmp_path / category).mkdir()
        (tmp_path / category / "facts.md").write_text(f"# Facts\n\n## Refunds\n{fact}\n")
    return Knowledge.load(tmp_path)


def test_builtin_tools_are_idempotent_and_only_read() -> None:
    assert set(BUILTINS) == {"calculator", "search_knowledge"}
    assert all(one.idempotent and one.risk == "read" for one in BUILTINS.values())


def test_calculator(context: MakeContext) -> None:
    result = ToolRunner().call(calculator, {"expression": "17% of 2,340"}, context())
    assert (result.ok, result.content) == (True, "397.8")


def test_calculator_fault_is_the_result(context: MakeContext) -> None:
    result = ToolRunner().call(calculator, {"expression": "1/0"}, context())
    assert (result.ok, result.content) == (False, "Cannot calculate that: division by zero")


def test_search_gives_passages_and_sources(context: MakeContext, knowledge: Knowledge) -> None:
    result = ToolRunner().call(search_knowledge, {"query": "refunds"}, context(knowledge=knowledge))
    found = json.loads(result.content)["results"]
    assert {one["text"] for one in found} == {"Refunds take 5 days.", "Restart the refund robot."}
    assert [one["uri"] for one in found] == [source["uri"] for source in result.sources]
    assert set(result.sources[0]) == {"title", "uri", "quote"}


def test_search_within_a_category(context: MakeContext, knowledge: Knowledge) -> None:
    arguments = {"query": "refunds", "category": "billing"}
    result = ToolRunner().call(search_knowledge, arguments, context(knowledge=knowledge))
    assert [source["uri"] for source in result.sources] == ["knowledge/billing/facts.md#refunds"]


def test_unknown_category_lists_the_categories(context: MakeContext, knowledge: Knowledge) -> None:
    arguments = {"query": "refunds", "category": "sales"}
    result = ToolRunner().call(search_knowledge, arguments, context(knowledge=knowledge))
    assert (result.ok, result.content) == (False, "No such category; there are: billing, technical")


def test_nothing_found_is_an_answer(context: MakeContext, knowledge: Knowledge) -> None:
    result = ToolRunner().call(search_knowledge, {"query": "zebra"}, context(knowledge=knowledge))
    assert (result.ok, result.content, result.sources) == (True, '{"results":[]}', ())


def test_search_without_knowledge_fails(context: MakeContext) -> None:
    assert not ToolRunner().call(search_knowledge, {"query": "refunds"}, context()).ok
