"""Metadata that every table belongs to, with its naming convention, and the JSON column type."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Integer, String

from service.types import DEFAULT_WORKSPACE

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Json = sa.JSON(none_as_null=True)


def workspace_column() -> Column[str]:
    """Workspace of a row. The default is for replicas of releases without workspaces."""
    return Column("workspace_id", String(32), nullable=False, server_default=DEFAULT_WORKSPACE)


# Condition of partial indexes: a service with one workspace has nothing in them. As literal as those of runs.
OF_OTHERS = f"workspace_id <> '{DEFAULT_WORKSPACE}'"


def rows_where(sql: str) -> dict[str, Any]:
    """Options of a partial index: only rows for which the condition holds."""
    return dict.fromkeys(("sqlite_where", "postgresql_where"), sa.text(sql))


# One row, kept by `migrations/env.py` beside Alembic's own table: see `service.store.fitness`.
compatibility = sa.Table(
    "schema_compatibility",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("oldest_code", String(32), nullable=False),
)
