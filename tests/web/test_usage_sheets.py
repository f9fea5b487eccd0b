"""`GET /v1/usage` as CSV on both databases: the lines of the pages, each page read in a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.usage.conftest import postgres_url, url
from tests.web.usage_house import CSV, GROUPS, House, opened, sheet_of

__all__ = ["postgres_url", "url"]


@pytest.fixture
def house(tmp_path: Path, url: str) -> Iterator[House]:
    with opened(tmp_path, DATABASE_URL=url) as made:
        yield made


def test_pages_and_the_sheet_have_the_same_lines(house: House) -> None:
    pages = list(house.pages(group_by=GROUPS))
    lines = [line for page in pages for line in page["data"]]
    assert len(pages) > 4 and all(page["total"] == pages[0]["total"] for page in pages)
    assert sum(line["calls"] for line in lines) == pages[0]["total"]["calls"] == 6_000
    sheet = house.get(CSV, group_by=GROUPS)
    assert sheet.headers["Content-Type"].startswith("text/csv") and "Link" not in sheet.headers
    assert sheet_of(sheet.text) == [{name: str(value) for name, value in line.items()} for line in lines]


def test_a_limited_sheet_leads_on(house: House) -> None:
    first = house.get(CSV, group_by=GROUPS, limit=100)
    address = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = house.app.test_client().get(address, headers={**house.signed_in, **CSV})
    whole = sheet_of(house.get(CSV, group_by=GROUPS).text)
    assert sheet_of(first.text) + sheet_of(second.text) == whole[:200]
    cursor = first.headers["Link"].partition("cursor=")[2].partition(">")[0]
    assert sheet_of(house.get(CSV, group_by=GROUPS, cursor=cursor.replace("%3D", "=")).text) == whole[100:]


def test_a_sheet_holds_no_transaction_between_its_pages(house: House) -> None:
    """Its reader may be as slow as it likes: no connection of the pool is out, no snapshot open."""
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    next(iter(answer.response))
    assert house.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    answer.close()
