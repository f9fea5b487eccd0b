"""Every text and JSON of somebody's is sealed, or listed with the reason why it is not."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.personal_data import ERASED, NOT_SEALED
from service.store.schema import metadata
from service.store.schema.sealed import SealedText
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "personal-data.md").read_text()


def is_text(column: sa.Column[Any]) -> bool:
    """Whether it holds text or JSON, but for the id of a row."""
    if isinstance(column.type, SealedText) or column.name in NOT_SEALED[column.table.name]:
        return True
    is_id = column.name == "id" or column.name.endswith("_id")
    return isinstance(column.type, sa.String | sa.JSON) and not is_id


def test_every_text_of_somebody_is_sealed_or_has_its_reason() -> None:
    assert NOT_SEALED.keys() == ERASED.keys()
    for name in ERASED:
        table = metadata.tables[name]
        sealed = {column.name for column in table.c if isinstance(column.type, SealedText)}
        assert not sealed & NOT_SEALED[name].keys(), name
        assert {column.name for column in table.c if is_text(column)} == sealed | NOT_SEALED[name].keys(), (
            name
        )


def test_nothing_of_nobodys_is_sealed() -> None:
    """The audit and the ledger are verified by whoever has no key."""
    sealed = {
        table.name
        for table in metadata.sorted_tables
        for column in table.c
        if isinstance(column.type, SealedText)
    }
    assert sealed <= ERASED.keys()


def test_a_value_is_bound_to_its_own_column() -> None:
    for table in metadata.sorted_tables:
        for column in table.c:
            if isinstance(column.type, SealedText):
                assert column.type.place == f"{table.name}.{column.name}"


def test_the_page_tells_of_every_table_with_sealed_columns() -> None:
    table = PAGE.split("| sealed | |")[1].split("\n\n")[0]
    for found in metadata.sorted_tables:
        if any(isinstance(column.type, SealedText) for column in found.c):
            assert f"`{found.name}`" in table, found.name
