"""A whole Slipway in this process, without HTTP: real Redis, database and offline model, and agents of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.testing import Testing
from service.llm.claude import ClaudeClient
from service.llm.retry import RetryingClient
from service.store import users
from service.types import Caller, Run, RunRequest, now_ms
from service.wiring import Services, build
from tests.tables import create_tables

ADA = Caller("usr_ada", "ada", "user")
SINGLE = "description: A test agent.\npattern: single\n"


@contextmanager
def services(
    home: Path,
    redis_url: str,
    model_url: str,
    agents: Mapping[str, str] | None = None,
    prompt: str = "Be good.",
    *,
    own_model: bool = True,
    **settings: Any,
) -> Iterator[Services]:
    """Wired, not started: no supervisor runs, so a test does by hand what that would. `agents` are their agent.yaml.

    `own_model`: agents ask by a client of the test; else by those that the settings make.
    """
    for name, spec in (agents or {"probe": SINGLE}).items():
        folder = home / "agents" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.yaml").write_text(spec)
        (folder / "prompt.md").write_text(prompt)
    chosen = {"slipway_home": home, "agents_dir": home / "agents", "redis_url": redis_url}
    chosen["lease_seconds"] = 60.0  # a busy machine must not seem to have a database that hangs
    made = Testing(**{**chosen, "anthropic_base_url": model_url, **settings})
    claude = ClaudeClient("", model_url, made.model_timeout, made.model_connect_timeout, 64)
    model = RetryingClient(claude, made.model_retries, made.breaker_failures, 0.5, lambda attempt: None)
    wired = build(made, model=model if own_model else None)
    create_tables(wired.infra.db.engine)
    ada = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user", "created_at": now_ms()}
    wired.infra.db.transact(lambda tx: users.insert(tx, ada))
    try:
        yield wired
    finally:
        wired.close()
        claude.close()


def ask(wired: Services, text: str = "What time is it?", **fields: Any) -> Run:
    """Ask the agent `probe` and wait."""
    return wired.runs.start.invoke(ADA, request(text, **fields), None, "req").run


def request(text: str, **fields: Any) -> RunRequest:
    return RunRequest(**{"agent": "probe", "messages": ({"role": "user", "content": text},), **fields})
