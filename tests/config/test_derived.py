"""Addresses that are filled in when nothing is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from sqlalchemy.engine import make_url

from config import Settings, load
from config.derived import redis_socket


def test_default_database_is_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_url(load({}).database_url).database == str(tmp_path / "var" / "slipway.db")
    assert make_url(load({"SLIPWAY_HOME": "/srv/s"}).database_url).database == "/srv/s/slipway.db"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgresql_scheme_selects_psycopg_3(scheme: str) -> None:
    assert load({"DATABASE_URL": f"{scheme}://u:p@h/d"}).database_url == "postgresql+psycopg://u:p@h/d"


def test_embedded_redis_socket_is_in_the_state_folder() -> None:
    settings = load({"SLIPWAY_HOME": "/srv/a%20state"})
    assert settings.embedded_redis
    pool = redis.ConnectionPool.from_url(settings.redis_url)
    assert pool.connection_kwargs["path"] == "/srv/a%20state/run/redis.sock"
    assert not load({"REDIS_URL": "redis://localhost"}).embedded_redis


def test_too_long_socket_path_moves_to_the_temporary_folder() -> None:
    one, other = (redis_socket(Path("/", *("deep" for _ in range(30)), last)) for last in ("one", "other"))
    assert one != other
    assert all(len(os.fsencode(path)) < 104 for path in (one, other))


def test_without_api_key_the_offline_model_is_used() -> None:
    assert load({}).anthropic_base_url == "http://127.0.0.1:8099"
    assert load({"OFFLINE_MODEL_PORT": "9001"}).anthropic_base_url == "http://127.0.0.1:9001"


def test_with_api_key_the_base_url_is_the_providers_or_the_setting() -> None:
    assert load({"ANTHROPIC_API_KEY": "sk-test"}).anthropic_base_url == ""
    gateway = load({"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": "https://gateway/"})
    assert (gateway.anthropic_base_url, gateway.offline) == ("https://gateway", False)


def test_some_threads_are_reserved_for_short_requests() -> None:
    for threads in (4, 8, 32, 64):
        assert 0 < Settings(threads=threads).request_places < threads


@pytest.mark.parametrize(
    ("place", "hosts"),
    [
        ("u:p%40w@h1:5432,h2:5433/d?sslmode=require", ("h1,h2", "5432,5433")),
        ("h1,h2/d", ("h1,h2", ",")),
        ("u@h1,h2:5433/d", ("h1,h2", ",5433")),
        ("u@[::1]:5432,h2/d", ("::1,h2", "5432,")),
        ("u@h1/d", ("h1", None)),
    ],
)
def test_several_hosts_use_libpq_syntax(place: str, hosts: tuple[str, str | None]) -> None:
    url = make_url(load({"DATABASE_URL": f"postgresql://{place}"}).database_url)
    _, given = url.get_dialect()().create_connect_args(url)
    assert (given["host"], given.get("port")) == hosts
    assert (given["dbname"], url.database) == ("d", "d")
