"""Settings of the service, in the audit: a digest, and the names of those that differ from their defaults."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import SecretStr

from service.audit.record import Action, record
from service.store import audit as rows
from service.store.audit import Filter
from service.store.database import Database, Transaction
from service.types import DEFAULT_WORKSPACE

if TYPE_CHECKING:
    from config.base import Settings


def record_settings(db: Database, settings: Settings) -> None:
    """Record the settings of this process, unless those recorded last are the same."""
    details: dict[str, Any] = {"digest": digest_of(settings), "differ": differing(settings)}

    def work(tx: Transaction) -> None:
        last = rows.recent(tx, Filter(DEFAULT_WORKSPACE, Action.SETTINGS), limit=1, before=None)
        if not last or last[0]["details"].get("digest") != details["digest"]:
            record(tx, Action.SETTINGS, "service", environment=settings.environment, **details)

    db.transact(work, patience=1)


def digest_of(settings: Settings) -> str:
    """Return an HMAC over all values under SECRET_KEY, so that no secret can be guessed from it."""
    values = {name: _plain(getattr(settings, name)) for name in type(settings).model_fields}
    secret = settings.secret_key.get_secret_value().encode()
    text = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(hmac.digest(secret, b"slipway audit settings", "sha256"), text, "sha256").hex()


def differing(settings: Settings) -> list[str]:
    """List the names of settings whose value is not the default of their environment."""
    fields, usual = type(settings).model_fields, settings.overrides
    return sorted(
        name.upper()
        for name, field in fields.items()
        if getattr(settings, name) != usual.get(name, field.get_default())
    )


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
