"""The offline model's queries of tables."""

from __future__ import annotations

import json

import pytest

from offline_model import querying
from service.tools.sources.tables import TableTools
from tests.conftest import ROOT

TOOL = TableTools().tools(ROOT / "agents" / "analyst")["query_table"].for_model()
IN_JUNE = "SELECT SUM(teams) AS teams FROM usage WHERE month IN ('2026-06') AND plan IN ('Fleet')"


@pytest.mark.parametrize(
    ("question", "sql"),
    [
        ("How many teams were on the Fleet plan in June 2026?", IN_JUNE),
        (
            "What is the total of tickets by region in 2026?",
            "SELECT region, SUM(tickets) AS tickets FROM usage WHERE month LIKE '2026-%' "
            "GROUP BY region ORDER BY region",
        ),
        (
            "Highest synced tb in Asia",
            "SELECT MAX(synced_tb) AS synced_tb FROM usage WHERE region IN ('Asia')",
        ),
        ("What is 17% of 2,340?", None),
        ("How many tickets?", None),
        ("What does the Fleet plan cost?", None),
        ("Which teams are in Europe?", None),
    ],
)
def test_a_question_becomes_one_select(question: str, sql: str | None) -> None:
    assert querying.query(TOOL, question) == sql


def test_a_result_is_told_with_its_query() -> None:
    told = querying.sentence(json.dumps({"columns": ["teams"], "rows": [[3480]]}), IN_JUNE)
    assert told == f"By the tables, teams: 3,480 ({IN_JUNE})."
    assert (
        querying.sentence('{"columns": ["a"], "rows": []}', "SELECT 1")
        == "The tables have no row for SELECT 1."
    )
    assert querying.sentence("397.8", "None") is None
