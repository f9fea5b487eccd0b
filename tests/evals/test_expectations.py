"""Each expectation, met and unmet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.agents.eval_spec import EvalCase, Expectation
from service.evals.expectations import unmet
from service.evals.outcome import Answered, Called

RESULT: dict[str, Any] = {
    "status": "succeeded",
    "output": "The refund takes 30 days.",
    "structured": None,
    "tools": [{"name": "search_knowledge", "ok": True, "ms": 1}],
    "sources": [
        {"title": "Refunds", "uri": "knowledge/refunds.md#terms", "quote": "within  30\ndays"},
        {"title": "Web", "uri": "https://example.org/a", "quote": "thirty days"},
    ],
    "steps": 2,
    "latency_ms": 1500,
}
CALLS = [
    Called("search_knowledge", {"query": "refund", "limit": 3}),
    Called("mail.send", {"to": "a@b.example"}),
]


@pytest.fixture
def answered(tmp_path: Path) -> Answered:
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "refunds.md").write_text("Refunds come within 30 days.")
    return Answered(RESULT, CALLS, ("mail.send",), "billing", 2_000_000, tmp_path)


@pytest.mark.parametrize(
    ("met", "failed", "why"),
    [
        ({"contains": ["REFUND"]}, {"contains": ["40 days"]}, "the answer has no '40 days'"),
        ({"not_contains": ["never"]}, {"not_contains": ["Refund"]}, "the answer has 'Refund'"),
        ({"matches": ["[0-9]+ days?"]}, {"matches": ["^30"]}, "does not match '^30'"),
        ({"category": "billing"}, {"category": "sales"}, "the category is billing, not sales"),
        ({"tools": ["search_knowledge"]}, {"tools": ["calculator"]}, "the tool calculator was not used"),
        ({"not_called": ["calculator"]}, {"not_called": ["mail.send"]}, "the tool mail.send was called"),
        (
            {"calls": [{"tool": "search_knowledge", "arguments": {"query": "refund"}}]},
            {"calls": [{"tool": "search_knowledge", "arguments": {"query": "other"}}]},
            'no call is search_knowledge {"query":"other"}',
        ),
        ({"approvals": ["mail.send"]}, {"approvals": ["mail.read"]}, "no call of mail.read waited"),
        ({"sources": ["knowledge/"]}, {"sources": ["tables/"]}, "no source is tables/"),
        ({"cites": [{"source": "knowledge/refunds.md"}]}, {"cites": [{"source": "x"}]}, "no source is x"),
        (
            {"cites": [{"source": "knowledge/", "quote": "30 days"}]},
            {"cites": [{"source": "knowledge/", "quote": "31 days"}]},
            "quotes '31 days'",
        ),
        ({"steps": 2}, {"steps": 1}, "it took 2 steps, more than 1"),
        ({"seconds": 1.5}, {"seconds": 1.4}, "it took 1.5 s, longer than 1.4 s"),
        ({"cost_usd": "0.002"}, {"cost_usd": 0.0019}, "it cost 0.002000 USD, more than 0.0019"),
        ({}, {"error": "run_limit"}, "the run did not fail with run_limit"),
        ({}, {"output_schema": {"type": "object"}}, "the answer is not JSON"),
    ],
)
def test_expectation(answered: Answered, met: dict[str, Any], failed: dict[str, Any], why: str) -> None:
    assert list(unmet(Expectation(**met), answered)) == []
    [line] = unmet(Expectation(**failed), answered)
    assert why in line


def test_quote_that_is_not_in_its_file_is_told(answered: Answered) -> None:
    """A quote of a page elsewhere is taken as it is: there is nothing here to compare it with."""
    (answered.folder / "knowledge" / "refunds.md").write_text("Refunds come within 14 days.")
    [line] = unmet(Expectation(cites=[{"source": "knowledge/refunds.md"}]), answered)  # type: ignore[list-item]
    assert line == "the quote of knowledge/refunds.md is not in its file"
    assert not list(unmet(Expectation(cites=[{"source": "https://example.org"}]), answered))  # type: ignore[list-item]
    outside = {**RESULT["sources"][0], "uri": "../../etc/passwd"}
    elsewhere = replace(answered, result={**RESULT, "sources": [outside]})
    assert not list(unmet(Expectation(cites=[{"source": "../"}]), elsewhere))  # type: ignore[list-item]


def test_schema_names_what_does_not_fit(answered: Answered) -> None:
    schema = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
    fits = replace(answered, result={**RESULT, "output": '{"days": 30}'})
    assert not list(unmet(Expectation(output_schema=schema), fits))
    wrong = replace(answered, result={**RESULT, "output": '{"days": "x"}'})
    [line] = unmet(Expectation(output_schema=schema), wrong)
    assert "/days" in line


def test_ends_of_a_run(answered: Answered) -> None:
    failed = replace(
        answered,
        result={**RESULT, "status": "failed"},
        error={"code": "run_limit", "detail": "Too many steps."},
    )
    assert list(unmet(Expectation(contains=["x"]), failed)) == ["the run failed: Too many steps."]
    assert list(unmet(Expectation(error="run_limit"), failed)) == []
    waiting = replace(answered, result={**RESULT, "status": "waiting_approval"})
    assert "mail.send waits for an approval" in next(unmet(Expectation(), waiting))
    assert not list(unmet(Expectation(approvals=["mail.send"]), waiting))
    assert "is cancelled" in next(
        unmet(Expectation(), replace(answered, result={**RESULT, "status": "cancelled"}))
    )


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"expect": {"matches": ["(?=a)b"]}}, "no look-around"),
        ({"expect": {"matches": ["("]}}, "regular expression"),
        ({"expect": {}, "inject": [{"text": "x"}]}, "needs a place"),
        ({"expect": {}, "inject": [{"text": "x", "tool": "a", "document": "b"}]}, "needs a place"),
        ({"expect": {}, "approve": ["a"], "deny": ["a"]}, "under `approve` and under `deny`"),
        ({"expect": {"cost_usd": 0}}, "greater than 0"),
        ({"expect": {}, "repeat": 101}, "100"),
    ],
)
def test_case_that_says_nothing_sound_is_refused(case: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        EvalCase(input="Hello", **case)


def test_key_is_of_what_is_asked_and_expected() -> None:
    """A case that is asked more often is the same; one that expects something else has no baseline."""
    plain = EvalCase(input="Hello", expect={"contains": ["a"]})  # type: ignore[arg-type]
    assert plain.key == plain.model_copy(update={"repeat": 5}).key
    assert plain.key != EvalCase(input="Hello", expect={"contains": ["b"]}).key  # type: ignore[arg-type]
