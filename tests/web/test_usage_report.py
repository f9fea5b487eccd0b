"""`GET /v1/usage` with more groups than fit a page: a cursor as JSON, a sheet that is read as it is sent as CSV."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from itsdangerous import URLSafeSerializer

from service.store import usage
from service.store.schema import ledger
from service.store.usage import DAY_MS, HOUR_MS, UsageQuery
from service.types import rfc3339
from service.usage import reports
from service.usage.rollup import roll_up
from tests.made import close
from tests.usage.calls import TODAY, Call, book, some
from tests.web.usage_house import CSV, DAYS, GROUPS, SPAN, USERS, House, opened


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("usage")) as made:
        yield made


def test_a_sheet_is_not_kept_in_memory(house: House) -> None:
    house.get(CSV, group_by=GROUPS, buffered=False).close()
    tracemalloc.start()
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    size = sum(map(len, answer.response))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    answer.close()
    assert size == len(house.get(CSV, group_by=GROUPS).data)
    assert peak < 3_000_000  # of a page: all six take more


def test_a_sheet_sums_the_whole_report_for_many_lines_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of end users alone are no slices: 50,000 of them took 93 seconds."""
    limits, lines = list[int](), usage.lines
    monkeypatch.setattr(
        usage, "lines", lambda *about, **more: limits.append(more["limit"]) or lines(*about, **more)
    )
    for groups, limit in (("end_user", reports.LONG_PAGE), ("user", reports.PAGE)):
        limits.clear()
        assert house.get(CSV, group_by=groups).status_code == 200
        assert {*limits} == {limit}


def test_csv_report_holds_its_slot_until_closed(house: House) -> None:
    answer = house.get(CSV, group_by=GROUPS, buffered=False)
    next(iter(answer.response))
    assert house.bulkhead.taken == 1
    answer.close()  # the reader is gone
    assert house.bulkhead.taken == 0
    house.get(CSV, group_by=GROUPS)
    assert house.bulkhead.taken == 0
    taken = [house.bulkhead.take(f"usr_{n}", reads=True) for n in range(house.bulkhead.total // 2)]
    refused = house.get(CSV, group_by=GROUPS)
    assert (refused.status_code, refused.json["code"]) == (503, "overloaded") and refused.headers[
        "Retry-After"
    ]
    assert (
        house.get(CSV, group_by=GROUPS, limit=10).status_code == 200
    )  # a page takes no longer than any other list
    for place in taken:
        place.give()


def test_a_sheet_that_cannot_go_on_is_broken_off(tmp_path: Path) -> None:
    """Cut the connection, so that no reader takes the part for the whole; before the first line, answer a problem."""
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
    assert house.bulkhead.taken == 0
    refused = house.get(CSV, group_by=GROUPS)
    assert refused.status_code >= 500 and refused.json["code"]
    assert house.bulkhead.taken == 0
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


def signed(secret: str, *parts: Any) -> str:
    return str(URLSafeSerializer(secret, "usage cursor").dumps(parts))


BY = GROUPS.split(",")
LINE = [20_000, "usr", "a"]
BAD = [
    "x",
    "1000",
    "é",
    "=" * 5,
    "A" * 1025,
    signed("another secret", 1, BY, LINE),
    signed("another secret", 1, BY, LINE).rpartition(".")[0],
]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("cursor", BAD, ids=range(len(BAD)))
def test_a_cursor_that_is_none_is_refused(house: House, cursor: str, accept: str) -> None:
    refused = house.get({"Accept": accept}, group_by=GROUPS, cursor=cursor)
    assert (refused.status_code, refused.json["code"]) == (422, "invalid")
    assert refused.json["errors"][0]["pointer"] == "/cursor"


def test_a_cursor_of_a_report_with_other_groups_is_none(house: House) -> None:
    cursor = house.get(group_by="day,user", limit=1).json["next_cursor"]
    assert house.get(group_by="day,user", cursor=cursor).status_code == 200
    for groups in ("", "user,day", "day,user,agent"):
        refused = house.get(group_by=groups, cursor=cursor)
        assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, "/cursor"), groups


def test_a_cursor_that_was_changed_is_none(house: House) -> None:
    secret = house.app.extensions["slipway"].settings.secret_key.get_secret_value()
    cursor = signed(secret, 2**45, BY, LINE)
    assert house.get(group_by=GROUPS, cursor=cursor, limit=1).status_code == 200
    values, _, signature = cursor.rpartition(".")
    changed = signed(secret, 2**45, BY, [20_001, "usr", "a"]).rpartition(".")[0]
    assert house.get(group_by=GROUPS, cursor=f"{changed}.{signature}").status_code == 422
    assert house.get(group_by=GROUPS, cursor=f"{values}.{signature[::-1]}").status_code == 422


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
def test_last_page_costs_no_more_than_the_first(house: House, by: tuple[str, ...]) -> None:
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


def test_first_page_of_users_costs_no_more_than_the_next(house: House) -> None:
    """SQLite would read the days of all of them: it takes the index by day where users have one bound only."""
    while roll_up(house.db):
        pass
    asked = UsageQuery((TODAY - DAYS) * DAY_MS, TODAY * DAY_MS, ("user",))
    first, lines = work_of(house, asked, None, 20)
    following, _ = work_of(house, asked, (lines[-1]["user"],), 20)
    assert first <= 2 * following, (first, following)
