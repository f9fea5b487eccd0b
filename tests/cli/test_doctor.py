"""`flask doctor`: parts that are well, and each fault by making it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from flask import Flask

from config import load
from service import wiring
from service.app import create_app
from service.cli import doctor
from service.cli.doctor_checks import Finding, skew
from service.runs.recovery.supervisor import ProcessRole
from service.wiring import Services
from tests.cli.house import Flask_, a_run, env, flask, services, whole
from tests.evals.house import write_agent
from tests.tables import create_tables

__all__ = ["env", "flask", "services", "whole"]
Found = dict[str, list[tuple[str, str]]]


def found_of(said: str) -> Found:
    """States and sentences by part."""
    found: Found = {}
    for one in json.loads(said):
        found.setdefault(one["part"], []).append((one["state"], one["says"]))
    return found


@contextmanager
def app_of(settings: dict[str, str]) -> Iterator[Flask]:
    loaded = load(settings)
    parts = wiring.build(loaded, ProcessRole("cli"))
    try:
        yield create_app(loaded, parts)
    finally:
        parts.close()


@pytest.fixture
def examine(env: dict[str, str]) -> Callable[..., Found]:
    """Run the command with other settings of the same service."""

    def run(code: int = 1, **settings: str) -> Found:
        with app_of({**env, **settings}) as app:
            result = app.test_cli_runner().invoke(args=["doctor", "--json"])
            assert result.exit_code == code, result.output
            return found_of(result.stdout)

    return run


def test_parts_that_are_well(flask: Flask_, services: Services) -> None:
    services.auth.tokens.keys.refresh()
    said = flask("doctor")
    assert "0 errors" in said.stdout and "ERROR" not in said.stdout
    found = found_of(flask("doctor", "--json").stdout)
    assert found["keys"] == [("ok", "SECRET_KEY opens all signing keys")]
    assert found["texts"] == [("ok", "not sealed")]
    assert found["database"][0][0] == found["redis"][0][0] == found["model"][0][0] == "ok"


def test_dependencies_that_are_away(examine: Callable[..., Found]) -> None:
    away = {"REDIS_URL": "redis://127.0.0.1:9", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    found = examine(**away, DATABASE_URL="postgresql://u:private@127.0.0.1:9/x")
    for part in ("database", "redis", "model", "keys", "texts", "workers"):
        assert [state for state, _ in found[part]] == ["error"], part
    assert found["database"] == [("error", "connection refused: no server listens there")]
    assert found["agents"][-1][0] == "ok"  # what needs none of them is told all the same
    assert "private" not in str(found)


def test_database_without_tables(examine: Callable[..., Found], tmp_path: Path) -> None:
    found = examine(DATABASE_URL=f"sqlite:///{tmp_path}/empty.db")
    assert "run `alembic upgrade head`" in found["database"][0][1]


def test_other_secret_key(examine: Callable[..., Found], services: Services) -> None:
    services.auth.tokens.keys.refresh()
    found = examine(0, SECRET_KEY="another-secret-key-that-is-long-enough-for-it")
    [(state, says)] = found["keys"]
    assert state == "warning" and "another SECRET_KEY" in says


def test_sealed_texts_without_their_keyring(
    examine: Callable[..., Found], env: dict[str, str], tmp_path: Path
) -> None:
    kept = {"DATABASE_URL": f"sqlite:///{tmp_path}/sealed.db", "KEYRING_URL": f"sqlite:///{tmp_path}/keys.db"}
    with app_of({**env, **kept}) as app:
        parts: Services = app.extensions["slipway"]
        create_tables(parts.infra.db.engine)
        parts.auth.users.create("ada", "ada-password")
        parts.runs.supervisor.start()
        a_run(parts)
    assert examine(0, **kept)["texts"] == [("ok", "sealed, and the keyring opens them")]
    found = examine(DATABASE_URL=kept["DATABASE_URL"])
    assert found["texts"] == [("error", "This is sealed, and KEYRING_URL is not set.")]


def test_agents_that_cannot_be_served(examine: Callable[..., Found], tmp_path: Path) -> None:
    write_agent(tmp_path / "agents", [])
    (tmp_path / "agents" / "broken").mkdir()
    (tmp_path / "agents" / "broken" / "agent.yaml").write_text("pattern: nothing\n")
    found = examine(AGENTS_DIR=str(tmp_path / "agents"))["agents"]
    assert [state for state, _ in found] == ["error"] * (len(found) - 1) + ["ok"] and len(found) > 1
    assert "broken" in found[0][1]
    [(state, says)] = examine(AGENTS_DIR=str(tmp_path / "nothing"))["agents"][-1:]
    assert state == "error" and "none are served" in says


def test_prices_that_are_old(flask: Flask_, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.usage.prices, "checked", date(2026, 1, 5))
    assert "were last compared on 2026-01-05" in flask("doctor").stdout


def test_home_that_others_can_read(flask: Flask_, services: Services) -> None:
    home = services.settings.slipway_home
    home.chmod(0o755)
    try:
        assert f"chmod 700 {home}" in flask("doctor").stdout
    finally:
        home.chmod(0o700)


@pytest.mark.parametrize(("ms", "states"), [(-500, []), (2_500, ["warning"]), (-90_000, ["error"])])
def test_clocks_that_differ(ms: int, states: list[str]) -> None:
    assert [finding.state for finding in skew("Redis", ms)] == states


def test_check_that_hangs_or_breaks_hides_no_other(flask: Flask_, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def hangs(_: Services) -> Iterator[Finding]:
        yield Finding("ok", "so far")
        ended.wait(30)

    def breaks(_: Services) -> Iterator[Finding]:
        raise KeyError("private")
        yield

    def works(_: Services) -> Iterator[Finding]:
        yield Finding("ok", "all of it")

    made = {"hangs": hangs, "breaks": breaks, "works": works}
    monkeypatch.setattr(doctor, "checks", lambda _: made)
    monkeypatch.setattr(doctor, "SECONDS", 1.0)
    try:
        found = found_of(flask("doctor", "--json", code=1).stdout)
    finally:
        ended.set()
    assert found == {
        "hangs": [("ok", "so far"), ("error", "no answer within 1 s")],
        "breaks": [("error", "the check itself failed: KeyError")],
        "works": [("ok", "all of it")],
    }
