"""Service of its own for one run of evals: a temporary home, real runs, a cap that they cannot pass."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from service import wiring
from service.evals import programs
from service.evals.injection import InjectingRunner
from service.evals.results import Model
from service.ids import new_id
from service.mcp.build import FILE, file_of
from service.runs.recovery.supervisor import ProcessRole
from service.store import users
from service.store.schema import metadata
from service.types import Caller, now_ms
from service.wiring import Services

if TYPE_CHECKING:
    from config.base import Settings


@dataclass(frozen=True, slots=True)
class House:
    """Services that execute the runs. `deterministic`: our own offline model answers, the same each time."""

    services: Services
    tools: InjectingRunner
    deterministic: bool

    @property
    def model(self) -> Model:
        """Kind of model, by which results are comparable: `offline` or `real`."""
        return "offline" if self.services.settings.offline else "real"

    def caller(self) -> Caller:
        """Make a user: nothing that one repeat leaves behind, such as notes or limits, reaches another."""
        user_id = new_id("usr")
        row: dict[str, Any] = {
            "id": user_id,
            "username": user_id,
            "password_hash": "",
            "role": "admin",
            "disabled": False,
            "limit_runs": None,
            "created_at": now_ms(),
        }
        caller = Caller(user_id, user_id, "admin")
        row["workspace_id"] = caller.workspace_id
        self.services.infra.db.transact(lambda tx: users.insert(tx, row))
        return caller

    def spent(self) -> int:
        """Return the nano-dollars spent by all runs, judges included."""
        [standing] = [one for one in self.services.usage.budgets.of(["service"]) if one.cap.period == "total"]
        return standing.spent


@contextmanager
def open_house(settings: Settings, cap_nano: int) -> Iterator[House]:
    """Start a service over a temporary home, and the programs it needs. Raises `Unavailable`.

    Nothing of the operator's own service is read or written: neither its database nor its Redis, which is left out.
    """
    with ExitStack() as until_end:
        enter = until_end.enter_context
        home = Path(enter(tempfile.TemporaryDirectory(prefix="slipway-evals-")))
        own_model = settings.offline and settings.anthropic_base_url == _default_offline(settings)
        url = enter(programs.offline_model()) if own_model else settings.anthropic_base_url
        if _uses_ours(settings):
            enter(_environment(enter(programs.mail_and_calendar(home))))
        enter(_quiet("slipway.redis"))
        own = settings.model_copy(update=_changes(home, url, settings))
        tools = InjectingRunner()
        services = wiring.build(own, ProcessRole("cli"), tools=tools)
        until_end.callback(services.close)
        metadata.create_all(services.infra.db.engine)
        services.usage.budgets.put("service", "total", cap_nano)
        services.runs.supervisor.start()
        yield House(services, tools, own_model)


def offline(settings: Settings) -> Settings:
    """Return settings with which the offline model is asked, whatever key and upstream there are."""
    changes = {
        "anthropic_api_key": SecretStr(""),
        "anthropic_base_url": _default_offline(settings),
        "model_providers": "anthropic",
        "openai_api_key": SecretStr(""),
        "openai_base_url": "",
        "semantic_cache_url": "",
    }
    return settings.model_copy(update=changes)


def _changes(home: Path, url: str, settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from the operator's: places, and calls to others."""
    return {
        "slipway_home": home,
        "database_url": f"sqlite:///{home / 'slipway.db'}",
        "redis_url": f"unix://{home / 'none.sock'}",
        "broker_url": "",
        "keyring_url": "",
        "budget_webhook_url": "",
        "anthropic_base_url": url,
        "agents_dir": settings.agents_dir.absolute(),
        "mcp_servers": str(file_of(settings).absolute()),
        "reload": False,
    }


def _default_offline(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.offline_model_port}"


def _uses_ours(settings: Settings) -> bool:
    """Return whether agents may use the mail and calendar of this repository, and nobody named other ones."""
    used, ours = file_of(settings), programs.OURS / FILE
    there = ours.exists() and used.exists() and used.samefile(ours)
    return there and not programs.addresses_given()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that `mcp.yaml` names."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Log no line of a part that is left out."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
