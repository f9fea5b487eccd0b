"""Every table. Times are milliseconds since 1970 (UTC), money is integer nano-dollars, ids are text.

A change here needs a migration, made after it: see `docs/contributing.md`, "Table".
"""

from __future__ import annotations

from service.store.schema.accounts import (
    api_keys,
    erasures,
    identities,
    sign_in_addresses,
    signing_keys,
    token_families,
    users,
    workspaces,
)
from service.store.schema.activity import (
    DIED,
    ENDED_BADLY,
    IN_LINE,
    OF_ALL,
    UNFINISHED,
    agent_stops,
    batch_items,
    batches,
    feedback,
    idempotency,
    messages,
    notices,
    runs,
    sessions,
    steps,
    task_turns,
    webhooks,
    workers,
)
from service.store.schema.audit import audit, audit_links, audit_unlinked
from service.store.schema.base import compatibility, metadata
from service.store.schema.files import files, run_files, session_files
from service.store.schema.gateway import gateway_calls, run_tokens
from service.store.schema.knowledge import knowledge_documents, knowledge_passages, knowledge_scopes
from service.store.schema.mcp import mcp_credentials, mcp_tools
from service.store.schema.memory import memory_notes
from service.store.schema.money import (
    SAVED,
    SUMS,
    caps,
    closed_windows,
    counters,
    holds,
    ledger,
    savings_daily,
    savings_daily_by_user,
    savings_hourly,
    usage_daily,
    usage_daily_by_user,
    usage_days,
)
from service.store.schema.schedules import schedule_slots, schedules
from service.store.schema.sealed import SealedText
from service.store.schema.tool_use import EXPIRING, approval_webhooks, approvals, tool_calls
from service.store.schema.versions import agent_canaries, agent_pins, agent_versions
