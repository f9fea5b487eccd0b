"""Tables that are copied are those of the schema, on both databases."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store.database import Database
from service.store.schema import metadata
from tests.processes import migrate
from tests.tables import create_tables
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


def made(db: Database) -> dict[str, set[str]]:
    """Names of the tables, each with those of its columns and indexes, without what one database has for searches."""
    found = sa.inspect(db.engine)
    return {
        table: {column["name"] for column in found.get_columns(table)}
        | {str(index["name"]) for index in found.get_indexes(table)}
        for table in found.get_table_names()
        if not table.startswith(("knowledge_words", "knowledge_vectors"))
    }


@pytest.mark.filterwarnings("ignore:Did not recognize type .halfvec.")
def test_copied_tables_are_those_of_the_schema(url: str) -> None:
    with closing(Database(url)) as db:
        create_tables(db.engine)
        create_tables(db.engine)  # another application over the same database
        tables = made(db)
        assert tables.keys() - {"alembic_version"} == metadata.tables.keys()
        for name, table in metadata.tables.items():
            assert tables[name] >= {column.name for column in table.columns}
            assert tables[name] >= {str(index.name) for index in table.indexes}


def test_a_new_file_is_migrated_by_a_copy(tmp_path: Path) -> None:
    for name in ("one", "two"):
        migrate({"APP_ENV": "testing", "SLIPWAY_HOME": str(tmp_path / name)})
        with closing(Database(f"sqlite:///{tmp_path}/{name}/slipway.db")) as db:
            assert made(db).keys() == metadata.tables.keys() | {"alembic_version"}
