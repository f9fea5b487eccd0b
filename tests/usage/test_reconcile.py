"""The provider's exports, in the shapes it gives them, beside our books."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from service.types import Usage, now_ms
from service.usage.reconcile import drifts
from service.usage.reports import day_of
from tests.usage.house import House

DAY = day_of(now_ms() // 86_400_000)
CSV = "date,model,input_tokens,output_tokens,cache_read_input_tokens,cache_creation_input_tokens,cost\n"


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(f"sqlite:///{tmp_path}/money.db")
    house.spend(Usage(100, 50, 10, 5))
    house.spend(Usage(1, 2, 3, 4))
    return house


def test_matching_export_has_no_drift(house: House) -> None:
    # 101 x 2,000 + 52 x 10,000 + 13 x 100 + 9 x 2,500 nano-dollars
    [drift] = drifts(house.db, f"{CSV}{DAY},claude-sonnet-5-5-20260928,101,52,13,9,0.0007458\n")
    assert not drift.differs
    assert drift.ours == drift.theirs and drift.ours["cost"] == 745_800


def test_differing_export_has_drifts(house: House) -> None:
    found = drifts(house.db, f"{CSV}{DAY},claude-sonnet-5-5,100,52,13,9,\n{DAY},claude-opus-5-5,1,1,0,0,1\n")
    assert [(drift.model, drift.differs) for drift in found] == [
        ("claude-opus-5-5", True),
        ("claude-sonnet-5-5", True),
    ]
    assert "cost" not in found[1].theirs and found[0].ours == {}
    [ours] = [drift for drift in drifts(house.db, f"{CSV}{DAY},x,1,1,1,1,1\n") if drift.model != "x"]
    assert ours.ours["input_tokens"] == 101 and ours.theirs["input_tokens"] == 0


def test_the_console_export_and_the_usage_api(house: House) -> None:
    console = (
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
        f"{DAY},claude-sonnet-5-5,101,8,1,13,52\n"
    )
    api = {
        "data": [
            {
                "starting_at": f"{DAY}T00:00:00Z",
                "results": [
                    {
                        "model": "claude-sonnet-5-5",
                        "uncached_input_tokens": 101,
                        "cache_creation": {"ephemeral_5m_input_tokens": 8, "ephemeral_1h_input_tokens": 1},
                        "cache_read_input_tokens": 13,
                        "output_tokens": 52,
                    }
                ],
            }
        ]
    }
    for export in (console, orjson.dumps(api).decode()):
        [drift] = drifts(house.db, export)
        assert not drift.differs, drift


@pytest.mark.parametrize(
    "export",
    [
        f"{CSV}yesterday,x,1,1,1,1,1\n",
        f"{CSV}{DAY},x,many,1,1,1,1\n",
        f"{CSV}{DAY},x,١,1,1,1,1\n",
        f"{CSV}{DAY},x,1,1,1,1,１\n",
        f"{CSV}{DAY},x,1,1,1,1,Infinity\n",
        f"{CSV}{DAY},x,1,1,1,1,1e999999\n",
        '[{"model": "x"}]',
    ],
)
def test_unreadable_record_is_named(house: House, export: str) -> None:
    with pytest.raises(ValueError, match="record 1"):
        drifts(house.db, export)


@pytest.mark.parametrize(
    "export",
    [
        '{"a": 1}',
        '{"data": 1}',
        "[1]",
        '[{"results": 1}]',
        '[{"results": [1]}]',
        '[{"cache_creation": [1]}]',
        "{",
        f'{CSV}"{"x" * 200_000}"\n',
    ],
)
def test_document_without_records_is_refused(house: House, export: str) -> None:
    with pytest.raises(ValueError, match=r"export|JSON|expected"):
        drifts(house.db, export)


def test_an_empty_export(house: House) -> None:
    assert drifts(house.db, CSV) == []
