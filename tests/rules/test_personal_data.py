"""Every table and Redis prefix is registered as somebody's or nobody's, with its erasure; the page tells of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import redis

from service.privacy import redis_keys
from service.store import personal_data
from service.store.schema import metadata, runs, sessions, users
from tests.conftest import ROOT
from tests.privacy.house import House, house, postgres_url, url

__all__ = ["house", "postgres_url", "url"]
PREFIX = re.compile(r"slipway:[a-z]+")
PAGE = (ROOT / "docs" / "personal-data.md").read_text()


def prefixes() -> Iterator[str]:
    """Yield the prefixes that the code names, but for docstrings."""
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                yield from PREFIX.findall(node.value)


def test_every_table_is_registered_once() -> None:
    registered = [*personal_data.ERASED, *personal_data.NOBODYS]
    assert sorted(registered) == sorted(metadata.tables)


def test_every_table_of_somebody_has_its_owner() -> None:
    """And every table that refers to users, runs or sessions is somebody's."""
    kinds = (*personal_data.OF_USER, *personal_data.OF_RUN, *personal_data.NOT_EXPORTED)
    owned = {kind.table.name for kind in (*kinds, personal_data.RUNS, personal_data.SESSIONS)}
    nested = (personal_data.MESSAGES, personal_data.SCHEDULES, personal_data.SLOTS)
    owned |= {kind.table.name for kind in nested}
    assert owned - {"ledger"} == set(personal_data.ERASED)
    for table in metadata.sorted_tables:
        if {key.column.table for key in table.foreign_keys} & {users, runs, sessions}:
            assert table.name in personal_data.ERASED, table.name


def test_every_redis_prefix_is_registered_once() -> None:
    registered = [*redis_keys.PERSONAL, *redis_keys.NOBODYS]
    assert sorted(registered) == sorted(set(prefixes()))


def test_every_key_of_a_life_has_a_registered_prefix(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    house.live(house.create(house.words, root), house.words, root, turns=1)
    client = redis.Redis.from_url(house.redis.url)
    found = {":".join(key.decode().split(":")[:2]) for key in client.scan_iter()}
    client.close()
    assert len(found) > 5 and found <= {*redis_keys.PERSONAL, *redis_keys.NOBODYS}


def test_the_page_tells_of_every_table_and_prefix() -> None:
    named = set(re.findall(r"`([\w:]+)`", PAGE))
    assert {*personal_data.ERASED, *personal_data.NOBODYS} <= named
    assert {*redis_keys.PERSONAL, *redis_keys.NOBODYS} <= named
