"""Construction of the audit: chainer, refusals, checkpoints, and the row about the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from service.audit.chain import Chainer
from service.audit.checkpoint import Checkpoints
from service.audit.record import Refusals
from service.audit.started import record_settings
from service.audit.watch import AuditWatch
from service.infra.backends import Infra

if TYPE_CHECKING:
    from config.base import Settings


@dataclass(frozen=True, slots=True)
class AuditServices:
    chainer: Chainer
    refusals: Refusals
    checkpoints: Checkpoints
    watch: AuditWatch
    settings: Callable[
        [], object
    ]  # records them, once a process; raises `DatabaseUnavailable`: call again later


def build(settings: Settings, infra: Infra) -> AuditServices:
    return AuditServices(
        chainer=Chainer(infra.db),
        refusals=Refusals(infra.db),
        checkpoints=Checkpoints(infra.db, settings.secret_key.get_secret_value()),
        watch=AuditWatch(infra.db, infra.metrics.audit_intact),
        settings=cache(partial(record_settings, infra.db, settings)),
    )
