"""Answers about the caller: identity, usage, caps, schedules, notes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from slipway_client.parsing import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine(Model):
    """Sums of one group; of the first eight fields only those of `group_by` are set.

    `hits`, `near_hits` and `coalesced` are answers that no model was asked for, beside the `calls`.
    """

    hour: str | None = None
    day: str | None = None
    agent: str | None = None
    model: str | None = None
    user: str | None = None
    key: str | None = None
    end_user: str | None = None
    workspace: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: Decimal
    hits: int
    near_hits: int
    coalesced: int
    hit_savings_usd: Decimal
    near_savings_usd: Decimal
    coalesced_savings_usd: Decimal
    prompt_cache_savings_usd: Decimal
    batch_savings_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Model):
    """Cap in its current window; the amount of a lifted cap is None."""

    scope: str
    period: Literal["day", "month", "total"]
    amount_usd: Decimal | None
    spent_usd: Decimal
    reserved_usd: Decimal
    left_usd: Decimal | None
    renews_at: datetime | None
    default: bool
    until: datetime | None = None
    after_usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Me(Model):
    """The caller."""

    id: str
    username: str
    role: str
    scopes: list[str]
    limits: dict[str, str]
    workspace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Model):
    """Runs of an agent by cron, in a time zone; lists leave out `input`."""

    id: str
    agent: str
    cron: str
    timezone: str
    missed: Literal["skip", "once", "all"]
    enabled: bool
    input: str | None = None
    next_at: datetime | None = None
    session_id: str | None = None
    cap_usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteItem(Model):
    """Note of agents about the caller; `agent` is None where the caller wrote it.

    `untrusted`: sources of untrusted text in the run that wrote it.
    """

    key: str
    agent: str | None
    untrusted: list[str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(NoteItem):
    """Note with its text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(Model):
    """Answer of a log-in or refresh; `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
