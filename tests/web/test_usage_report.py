"""`GET /v1/usage` with more groups than fit a page: a cursor as JSON, a sheet that is read as it is sent as CSV."""

from __future__ import annotations

import base64
import csv
import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service.store import usage
from service.store.database import Database
from service.store.schema import ledger, users
from service.store.usage import DAY_MS, HOUR_MS, UsageQuery
from service.types import rfc3339
from service.usage import reports
from service.usage.rollup import roll_up
from tests.made import app_in, close
from tests.usage.calls import TODAY, Call, book, some

CSV = {"Accept": "text/csv"}
DAYS, USERS, GROUPS = 20, 300, "day,user,agent"
SPAN = {"from": reports.day_of(TODAY - DAYS), "to": reports.day_of(TODAY - 1)}


class House:
    """An application with an admin who is signed in, and 6,000 calls of others."""

    def __init__(self, folder: Path) -> None:
        self.app: Flask = app_in(folder)
        services = self.app.extensions["slipway"]
        self.db: Database = services.db
        self.places = services.places
        user = services.users.by_name("demo")
        self.user_id = user.id
        self.signed_in = {"Authorization": f"Bearer {services.tokens.begin(user).public()['access_token']}"}

    def get(self, headers: dict[str, str] | None = None, buffered: bool = True, **query: Any) -> TestResponse:
        return self.app.test_client().get(
            "/v1/usage",
            query_string={**SPAN, **query},
            headers={**self.signed_in, "Accept": "application/json", **(headers or {})},
            buffered=buffered,
        )

    def pages(self, **query: Any) -> Iterator[Any]:
        cursor: dict[str, str] = {}
        while True:
            body = self.get(**query, **cursor).json
            yield body
            if body["next_cursor"] is None:
                return
            cursor = {"cursor": body["next_cursor"]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("usage"))
    book(made.db, some(6_000, TODAY - DAYS, TODAY, users=USERS))
    roll_up(made.db, batches=5)
    rows = [user_row(n) for n in range(USERS)]
    made.db.transact(lambda tx: tx.execute(sa.insert(users), rows))
    yield made
    close(made.app)


def user_row(number: int) -> dict[str, Any]:
    name = f"usr_{number:04}"
    about = {"password_hash": "x", "role": "user", "disabled": False, "created_at": 1}
    return {"id": name, "username": name, **about}


def sheet_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


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


def test_a_sheet_is_not_kept_in_memory(house: House) -> None:
    house.get(CSV, group_by=GROUPS, buffered=False).close()
    tracemalloc.start()
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    size = sum(map(len, answer.response))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    answer.close()
    assert size == len(house.get(CSV, group_by=GROUPS).data)
    assert peak < 2_000_000  # of a page: all six take more


def test_a_sheet_has_a_place_until_it_is_closed(house: House) -> None:
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    next(iter(answer.response))
    assert house.places.taken == 1
    answer.close()  # the reader is gone
    assert house.places.taken == 0
    house.get(CSV, group_by=GROUPS)
    assert house.places.taken == 0
    taken = [house.places.take(f"usr_{n}", reads=True) for n in range(house.places.total // 2)]
    refused = house.get(CSV, group_by=GROUPS)
    assert (refused.status_code, refused.json["code"]) == (503, "overloaded") and refused.headers[
        "Retry-After"
    ]
    assert (
        house.get(CSV, group_by=GROUPS, limit=10).status_code == 200
    )  # a page takes no longer than any other list
    for place in taken:
        place.give()


def test_a_sheet_holds_no_transaction_between_its_pages(house: House) -> None:
    """Its reader may be as slow as it likes: no connection of the pool is out, no snapshot open."""
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    next(iter(answer.response))
    assert house.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    answer.close()


def test_a_sheet_that_cannot_go_on_is_broken_off(tmp_path: Path) -> None:
    """Whoever reads must not take the part for the whole; before the first line a problem can still be told."""
    house = House(tmp_path)
    house.db.patience = 0
    book(house.db, some(3_000, TODAY - DAYS, TODAY, users=USERS))
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    lines = iter(answer.response)
    next(lines)
    house.db.transact(lambda tx: tx.execute(sa.text("ALTER TABLE ledger RENAME TO gone")))
    with pytest.raises(Exception, match=r"database|ledger"):
        list(lines)
    answer.close()
    assert house.places.taken == 0
    refused = house.get(CSV, group_by=GROUPS)
    assert refused.status_code >= 500 and refused.json["code"]
    assert house.places.taken == 0
    close(house.app)


def test_a_sheet_ends_in_time(house: House) -> None:
    asked = UsageQuery(0, TODAY * DAY_MS, ("day", "user", "agent"))
    with pytest.raises(reports.SheetEnded):
        list(reports.sheet(house.db, asked, seconds=-1))


def test_usage_by_the_hour_and_by_key(house: House) -> None:
    hour = (TODAY - 2) * DAY_MS + 5 * HOUR_MS
    book(house.db, [Call(hour, house.user_id, key="key_mine"), Call(hour + 1, house.user_id)])
    about = {"from": rfc3339(hour), "to": rfc3339(hour + 1), "group_by": "key,hour"}
    mine = [line for line in house.get(**about).json["data"] if line["key"] in ("key_mine", None)]
    assert mine[-1]["hour"] == rfc3339(hour)
    named = [line["key"] for line in house.get(**about).json["data"]]
    assert "key_mine" in named
    without = {**about, "to": rfc3339(hour + HOUR_MS)}
    assert None in [line["key"] for line in house.get(**without).json["data"]]
    house.db.transact(lambda tx: tx.execute(sa.delete(ledger).where(ledger.c.user_id == house.user_id)))


def test_hours_of_a_month_at_most(house: House) -> None:
    refused = house.get(group_by="hour", **{"from": reports.day_of(TODAY - 40)})
    assert (refused.status_code, refused.json["code"]) == (422, "invalid")
    [fault] = refused.json["errors"]
    assert fault["pointer"] == "/from" and "31 days" in fault["detail"]


def test_without_an_end_every_page_ends_where_the_first_did(house: House) -> None:
    query = {"group_by": GROUPS, "from": SPAN["from"], "limit": 50}
    ends = set()
    cursor: dict[str, str] = {}
    for _ in range(3):
        answer = house.app.test_client().get(
            "/v1/usage", query_string={**query, **cursor}, headers=house.signed_in
        )
        ends.add(answer.json["to"])
        cursor = {"cursor": answer.json["next_cursor"]}
    assert len(ends) == 1


def made_up(*parts: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


BY = GROUPS.split(",")
BAD = [
    "x",
    "1000",
    "é",
    "=" * 5,
    "A" * 1025,
    made_up(),
    made_up(1),
    made_up(1, BY, [20_000, "usr", "a"], 4),
    made_up("1", BY, [20_000, "usr", "a"]),
    made_up(True, BY, [20_000, "usr", "a"]),
    made_up(-1, BY, [20_000, "usr", "a"]),
    made_up(2**60, BY, [20_000, "usr", "a"]),
    made_up(1, ["day", "agent", "user"], [20_000, "a", "usr"]),
    made_up(1, BY, [20_000, "usr"]),
    made_up(1, BY, [20_000.5, "usr", "a"]),
    made_up(1, BY, [2**40, "usr", "a"]),
    made_up(1, BY, [20_000, None, "a"]),
    made_up(1, BY, [20_000, "u\x00", "a"]),
    made_up(1, BY, [20_000, "u" * 129, "a"]),
    made_up(1, BY, {"day": 1, "user": 2, "agent": 3}),
]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("cursor", BAD, ids=range(len(BAD)))
def test_a_cursor_that_is_none_is_refused(house: House, cursor: str, accept: str) -> None:
    refused = house.get({"Accept": accept}, group_by=GROUPS, cursor=cursor)
    assert (refused.status_code, refused.json["code"]) == (422, "invalid")
    assert refused.json["errors"][0]["pointer"] == "/cursor"


def test_a_cursor_of_a_report_without_groups_is_none(house: House) -> None:
    refused = house.get(group_by="", cursor=made_up(1, [], []))
    assert refused.status_code == 422


def work_of(
    house: House, asked: UsageQuery, after: usage.Values | None, limit: int | None
) -> tuple[int, list[Any]]:
    """Hundreds of instructions that SQLite takes for a page, and the page."""
    done = [0]

    def count() -> int:
        done[0] += 1
        return 0

    with house.db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(count, 100)
    try:
        lines = house.db.query(lambda tx: usage.lines(tx, asked, limit=limit, after=after))
        return done[0], lines
    finally:
        driver.set_progress_handler(None, 100)


@pytest.mark.parametrize("by", [("day", "user", "agent"), ("user", "agent", "day"), ("user", "model")])
def test_the_last_page_costs_what_the_first_does(house: House, by: tuple[str, ...]) -> None:
    asked = UsageQuery((TODAY - DAYS) * DAY_MS, TODAY * DAY_MS, by)
    if by[0] == "user":
        while roll_up(house.db):
            pass
    costs = []
    after = None
    while True:
        cost, lines = work_of(house, asked, after, 20)
        costs.append(cost)
        if len(lines) < 20:
            break
        after = tuple(lines[-1][name] for name in usage.order_of(by))
    whole, _ = work_of(house, asked, None, None)
    assert len(costs) > 20
    assert max(costs) < whole / 4, (costs, whole)
