"""Keyring: keys of users, made once, rotated, destroyed for good; away, another one, or open to others."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from config import ConfigError
from service.errors import KeyringUnavailable
from service.privacy import keyring as keyrings
from service.privacy.keyring import Keyring
from service.store import keyring as rows
from tests.conftest import Model
from tests.made import settings_in
from tests.privacy.canaries import in_files
from tests.privacy.house import House, house_in, postgres_url, url
from tests.privacy.sealed import house, keys

__all__ = ["house", "keys", "postgres_url", "url"]
ADA, BOB = "usr_ada", "usr_bob"


@pytest.fixture
def keyring(keys: str, tmp_path: Path) -> Iterator[Keyring]:
    made = keyrings.build(settings_in(tmp_path, KEYRING_URL=keys).keyring_url)
    assert made is not None
    yield made
    made.close()


def forget(keyring: Keyring) -> None:
    """Empty the cache, as in another process."""
    keyring._cache.clear()


def test_key_is_made_once_by_all(keyring: Keyring) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(keyring.to_seal(ADA))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    forget(keyring)
    assert len(found) == 8 and all(each == keyring.to_seal(ADA) for each in found)
    assert keyring.to_seal(BOB) != keyring.to_seal(ADA)


def test_tables_are_made_by_all_at_once(keys: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each process begins with a connection of its own."""
    address = settings_in(tmp_path, KEYRING_URL=keys).keyring_url
    made = [each for each in (keyrings.build(address) for _ in range(6)) if each is not None]
    together = threading.Barrier(len(made), timeout=30)

    def begin(each: Keyring) -> None:
        together.wait()
        each.to_seal(ADA)

    threads = [threading.Thread(target=begin, args=(each,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({str(each.to_seal(ADA)) for each in made}) == 1
    causes = {record.cause for record in caplog.records if record.message == "database_away"}  # type: ignore[attr-defined]
    assert causes <= {"the database is locked by another process"}  # an SQLite file that is new to all
    for each in made:
        each.close()


def test_rotated_key_seals_and_the_one_before_opens(keyring: Keyring) -> None:
    [(first, secret)] = keyring.to_seal(ADA).items()
    keyring.destroy(BOB)
    assert keyring.rotate() == 1
    forget(keyring)
    after = keyring.to_seal(ADA)
    assert next(iter(after)) == first and after[first] == secret and len(after) == 2
    assert keyring.to_seal(BOB) == {}


def test_key_of_another_process_is_found_before_the_cache_ends(keyring: Keyring) -> None:
    keyring.to_seal(ADA)
    keyring.db.transact(partial(rows.rotate, user_id=ADA, secret=b"x" * 32))
    newest = list(keyring.db.query(partial(rows.of_users, user_ids=[ADA]))[ADA])[-1]
    assert newest not in keyring.to_seal(ADA)
    assert newest in keyring.to_open({ADA: {newest}})[ADA]


def test_destroyed_key_is_never_made_anew(keyring: Keyring) -> None:
    keyring.to_seal(ADA)
    for user in (ADA, BOB, ADA):
        keyring.destroy(user)
    for make in (rows.create, rows.rotate):
        keyring.db.transact(partial(make, user_id=ADA, secret=b"x" * 32))
    for _ in range(2):
        assert keyring.to_seal(ADA) == {} and keyring.to_open({ADA: {"uky_1"}}) == {ADA: {}}
        forget(keyring)
    assert list(keyring.erased()) == [[ADA, BOB]]


def test_bytes_of_a_destroyed_key_are_gone(keyring: Keyring, tmp_path: Path) -> None:
    if not keyring.db.sqlite:
        pytest.skip("free space of PostgreSQL: docs/personal-data.md")
    [secret] = keyring.to_seal(ADA).values()
    for number in range(50):
        keyring.to_seal(f"usr_{number}")
    assert any(secret in content for _, content in in_files(tmp_path, "keyring.db*"))
    keyring.destroy(ADA)
    assert not any(secret in content for _, content in in_files(tmp_path, "keyring.db*"))


def test_key_is_on_the_disk_before_a_text_is_sealed_with_it(keyring: Keyring) -> None:
    setting, full = ("synchronous", 2) if keyring.db.sqlite else ("synchronous_commit", "on")
    command = "PRAGMA" if keyring.db.sqlite else "SHOW"
    with keyring.db.engine.connect() as connection:
        assert connection.exec_driver_sql(f"{command} {setting}").scalar_one() == full


def test_file_is_for_the_service_alone(keyring: Keyring, tmp_path: Path) -> None:
    keyring.to_seal(ADA)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("keyring.db*")}
    assert modes <= {0o600}


def test_keyring_that_others_can_read_or_that_is_the_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    file.touch(0o600)
    refused = {
        f"sqlite:///{tmp_path}/slipway.db": "is the database of DATABASE_URL",
        f"sqlite:///{tmp_path}/../{tmp_path.name}/slipway.db": "is the database of DATABASE_URL",
        "mysql://x/y": "must begin with",
        f"sqlite:///{file}": "can be read by every user",
    }
    assert settings_in(tmp_path, KEYRING_URL=f"sqlite:///{file}").keyring_url
    os.chmod(file, 0o644)
    for address, fault in refused.items():
        with pytest.raises(ConfigError, match=fault):
            settings_in(tmp_path, KEYRING_URL=address)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://a:b@db/slipway", "postgres://keys:c@db/slipway?sslmode=require"),
        ("postgresql://db1:5432,db2:5432/slipway", "postgresql://keys@db1:5432,db2:5432/slipway"),
        ("postgresql:///slipway?host=/run/pg", "postgresql:///slipway?host=/run/pg"),
    ],
)
def test_postgresql_of_the_service_is_refused(tmp_path: Path, one: str, other: str) -> None:
    with pytest.raises(ConfigError, match="is the database of DATABASE_URL"):
        settings_in(tmp_path, DATABASE_URL=one, KEYRING_URL=other)
    beside = other.replace("/slipway", "/keys")
    assert settings_in(tmp_path, DATABASE_URL=one, KEYRING_URL=beside).keyring_url


def test_database_of_the_service_under_another_name_is_refused(
    house: House, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = keyrings.build(url.replace("postgresql://", "postgresql+psycopg://"))
    assert made is not None
    with pytest.raises(KeyringUnavailable):
        made.to_seal(ADA)
    made.close()
    away = [record for record in caplog.records if record.message == "database_away"]
    causes = [record.cause for record in away if record.database == "keyring"]  # type: ignore[attr-defined]
    assert causes == ["KEYRING_URL leads to the database of the service: keys need one of their own."]


def test_without_the_keyring_known_keys_serve_and_others_are_503(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None and house.services.keyring is not None
    root = house.token(demo)
    known, other = house.create(house.words, root), house.create(house.kept, root)
    keyring = house.services.keyring
    ask = {"input": "Tell me of frogs", "cache": "bypass"}
    assert house.ask(house.token(known), "POST /v1/agents/common/invoke", ask).status_code == 200
    monkeypatch.setattr(keyrings, "FRESH", -1.0)  # as a minute later
    monkeypatch.setattr(house.services.infra.db, "patience", 0.2)
    take_away(keyring)
    assert house.ask(house.token(known), "POST /v1/agents/common/invoke", ask).status_code == 200
    refused = house.ask(house.token(other), "POST /v1/agents/common/invoke", ask)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "keyring_unavailable")
    assert "Retry-After" in refused.headers
    ready = house.app.test_client().get("/ready").get_json()
    assert (ready["status"], ready["keyring"]["status"]) == ("degraded", "degraded")
    assert house.services.infra.db.query(lambda tx: tx.rows(sa.text("SELECT 1 AS one"))) == [{"one": 1}]


def take_away(keyring: Keyring) -> None:
    """Make every further transaction of the keyring fail as in an outage, until `bring_back`."""
    engine = keyring.db.engine
    if keyring.db.sqlite:
        path = Path(engine.url.database or "")
        engine.dispose()
        path.rename(path.with_suffix(".away"))
        path.mkdir()
        return
    name = engine.url.database
    admin = engine.url.set(database="postgres")
    other = sa.create_engine(admin, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with other.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )


def test_another_keyring_is_503(house: House, url: str, tmp_path: Path, model: Model, scratch: Path) -> None:
    """An empty one, or none: nothing is shown as erased that is not."""
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    ada = house.create(house.words, house.token(demo))
    made = house.ask(house.token(ada), "POST /v1/sessions", {"agent": "clerk", "title": "frogs"})
    house.app.extensions["slipway"].close()
    (tmp_path / "another").mkdir()
    for more in ({}, {"KEYRING_URL": f"sqlite:///{tmp_path}/another/keys.db"}):
        with house_in(tmp_path, url, model, scratch, **more) as again:
            again.services.infra.db.patience = 0.2
            answer = again.ask(again.token(ada), f"GET /v1/sessions/{made.get_json()['id']}")
            assert (answer.status_code, answer.get_json()["code"]) == (503, "keyring_unavailable")


def test_erasure_waits_for_the_keyring(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None and house.services.keyring is not None
    ada = house.create(house.words, house.token(demo))
    with monkeypatch.context() as patch:

        def away(*_: object, **__: object) -> None:
            raise KeyringUnavailable

        patch.setattr(rows, "destroy", away)
        patch.setattr(house.services.keyring.db, "patience", 0.0)
        assert house.services.erasures.erase(ada.id)["status"] == "erasing"
    assert house.erased(ada.id)["status"] == "erased"
    assert list(house.services.keyring.erased()) == [[ada.id]]


def test_command_rotates(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None and house.services.keyring is not None
    house.services.keyring.to_seal(demo.id)
    done = house.app.test_cli_runner().invoke(args=["keyring", "rotate"])
    assert (done.exit_code, done.stdout) == (0, "New keys of 1 user.\n")
