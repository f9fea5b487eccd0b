"""Tables of schedules, and of what became of each of their slots."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String

from service.store.schema.base import OF_OTHERS, metadata, rows_where, workspace_column
from service.store.schema.sealed import SealedText

schedules = sa.Table(
    "schedules",
    metadata,
    Column("id", String(32), primary_key=True),
    workspace_column(),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("key_id", String(32)),  # key that set it up, whose rights its runs have; NULL: a log-in
    Column("agent", String(64), nullable=False),
    Column("input", SealedText("schedules.input"), nullable=False),
    Column("cron", String(128), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("missed", String(8), nullable=False),  # skip | once | all
    Column("session_id", String(32)),
    Column("cap_nano", BigInteger),  # most that one of its runs may cost
    Column("enabled", Boolean, nullable=False),
    Column("next_at", BigInteger, index=True),  # next slot, by the database's clock; NULL: not enabled
    Column("stopped", String(64)),  # code of the error for which the service has disabled it
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_schedules_user_id_id", "user_id", "id"),
    Index("ix_schedules_user_id_agent_id", "user_id", "agent", "id"),  # for keys with scopes
    Index("ix_schedules_agent_id", "agent", "id"),
    Index("ix_schedules_workspace_id_id", "workspace_id", "id", **rows_where(OF_OTHERS)),
)

# Outcome of a slot, or of all slots from `slot` to `until` that were skipped at once. One row for a slot: one run.
schedule_slots = sa.Table(
    "schedule_slots",
    metadata,
    Column("schedule_id", String(32), ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
    Column("outcome", String(8), nullable=False),  # run | skipped | refused
    Column("code", String(64)),  # why there was no run
    Column("run_id", String(32)),
    Column("at", BigInteger, nullable=False, index=True),  # when that was decided
    Index(
        "ix_schedule_slots_schedule_id_run_id", "schedule_id", "run_id", **rows_where("run_id IS NOT NULL")
    ),
    Index("ix_schedule_slots_schedule_id_slot", "schedule_id", "slot", **rows_where("run_id IS NULL")),
)
