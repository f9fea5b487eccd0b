"""`flask usage`: a table and bars of what was spent and saved, over all users."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from service.cli.usage import bar
from service.wiring import Services
from tests.cli.house import Flask_, env, flask, services, table, whole
from tests.usage.calls import TODAY, Answer, Call, answer, book

__all__ = ["env", "flask", "services", "whole"]
NOW = TODAY * 86_400_000


@pytest.fixture
def usage(services: Services) -> None:
    costly = [Call(NOW, agent="alpha", cost=8_000), Call(NOW - 5 * 86_400_000, agent="alpha", cost=8_000)]
    book(services.infra.db, [*costly, Call(NOW, agent="beta\x1b[31m", cost=4_000)])
    answer(services.infra.db, [Answer(NOW, agent="gamma", cost=2_000)])


@pytest.mark.usefixtures("usage")
def test_usage_is_told_as_a_table_as_json_and_as_bars(flask: Flask_) -> None:
    told = json.loads(flask("usage", "report", "--by", "agent", "--days", "2", "--json").stdout)
    alpha, beta, gamma = told["data"]
    assert (alpha["calls"], alpha["cost_usd"], alpha["savings_usd"]) == (1, "0.000008", "0.000004")
    assert (gamma["calls"], gamma["hits"] + gamma["near_hits"] + gamma["coalesced"]) == (0, 1)
    assert gamma["savings_usd"] == "0.000002" and told["total"]["calls"] == 2 and told["more"] is False
    assert beta["agent"] == "beta\x1b[31m"
    shown = flask("usage", "report", "--by", "agent", "--days", "2")
    assert table(shown)[0][:2] == ["AGENT", "CALLS"] and "\x1b" not in shown.stdout
    drawn = flask("usage", "plot", "--by", "agent", "--days", "2").stdout.splitlines()
    assert [line.count("█") for line in drawn] == [40, 20, 0, 0] and "\x1b" not in drawn[1]
    assert drawn[-1].startswith("total 0.000012 USD; saved ")
    whole_span = flask("usage", "plot", "--by", "day", "--of", "calls", "--limit", "1").stdout.splitlines()
    assert whole_span[0].endswith(" 1") and "The first 1 lines; --limit shows more." in whole_span


def test_wrong_groups_are_told(flask: Flask_) -> None:
    for groups in ("colour", "day,day", ""):
        assert "--by is any of hour" in flask("usage", "report", "--by", groups, code=1).output
    assert "31 days at most" in flask("usage", "plot", "--by", "end_user", "--days", "32", code=1).output


def test_bars_to_an_eighth() -> None:
    bars = [bar(Decimal(share)) for share in ("1", "0.5", "0.01", "0", "-1")]
    assert bars == ["█" * 40, "█" * 20, "▍", "", ""]
