"""A database that newer code has migrated, as after a roll-back: used where its migrations allow that, else refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from tests.conftest import PYTHON, ROOT, Model, RedisServer, slipway_server, wait_until
from tests.nginx.pair import database
from tests.store.test_migrations import REVISIONS, config

NEWER = '''\
"""newer: a column that older code does not know

Revision ID: 9001
Revises: {head}
"""

import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{head}"
{oldest}

def upgrade() -> None:
    op.add_column("users", sa.Column("nickname", sa.String(32)))


def downgrade() -> None:
    op.drop_column("users", "nickname")
'''
HEAD, BEFORE = REVISIONS[0], REVISIONS[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, scratch: Path) -> Iterator[str]:
    with database(str(request.param), Path(tempfile.mkdtemp(dir=scratch))) as address:
        yield address


def alembic(url: str, *command: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "alembic", *command],
        cwd=root,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def newer_code(folder: Path, oldest: str) -> Path:
    """This code with one more migration."""
    root = folder / "newer"
    root.mkdir()
    for name in ("service", "config", "migrations"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", root)
    migration = NEWER.format(head=HEAD, oldest=oldest)
    (root / "migrations" / "versions" / "9001_newer.py").write_text(migration)
    return root


def migrate_with_newer(url: str, folder: Path, oldest: str) -> None:
    done = alembic(url, "upgrade", "head", root=newer_code(folder, oldest))
    assert done.returncode == 0, done.stderr


def test_every_migration_has_its_oldest_code() -> None:
    scripts = list(ScriptDirectory.from_config(config("sqlite://")).walk_revisions())
    for script in scripts:
        assert getattr(script.module, "OLDEST_CODE", None) in REVISIONS[REVISIONS.index(script.revision) :]


def test_newer_and_marked_as_compatible_is_left_alone(url: str, tmp_path: Path) -> None:
    migrate_with_newer(url, tmp_path, f'OLDEST_CODE = "{BEFORE}"')
    done = alembic(url, "upgrade", "head")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "The database is at the newer revision 9001, on which this version runs too: nothing to migrate."
    ]
    for command in (("downgrade", BEFORE), ("current",), ("stamp", "head")):
        refused = alembic(url, *command)
        assert refused.returncode == 1 and "of which this version has no file" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("oldest", ['OLDEST_CODE = "9001"', "# says nothing"])
def test_newer_and_not_marked_is_refused_in_a_sentence(url: str, tmp_path: Path, oldest: str) -> None:
    migrate_with_newer(url, tmp_path, oldest)
    done = alembic(url, "upgrade", "head")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"The database cannot be migrated. The database is at revision 9001, which this version of Slipway (revision "
        f"{HEAD}) cannot work with: start the newer version, or take the migration back with it "
        f"(alembic downgrade {HEAD})."
    ]


def test_downgraded_database_is_used_again(url: str, tmp_path: Path) -> None:
    root = newer_code(tmp_path, 'OLDEST_CODE = "9001"')
    for command in (("upgrade", "head"), ("downgrade", HEAD)):
        assert alembic(url, *command, root=root).returncode == 0
    assert alembic(url, "upgrade", "head").returncode == 0


def test_after_a_roll_back_the_service_is_ready(
    url: str, tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    migrate_with_newer(url, tmp_path, f'OLDEST_CODE = "{HEAD}"')
    with (
        slipway_server(tmp_path / "home", redis_server.url, model.url, DATABASE_URL=url) as server,
        server.client() as client,
    ):
        assert client.get("/ready").status_code == 200
        assert client.post("/v1/agents/assistant/invoke", json={"input": "Back again"}).status_code == 200


def test_a_newer_database_that_does_not_fit_is_never_written_to(
    url: str, tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    """Migrated under a service that starts: the migration step of Compose would have refused it before."""
    with (
        slipway_server(
            tmp_path / "home", redis_server.url, model.url, migrated=False, DATABASE_URL=url
        ) as server,
        server.visitor() as visitor,
    ):
        assert visitor.get("/ready").status_code == 503
        migrate_with_newer(url, tmp_path, 'OLDEST_CODE = "9001"')
        wait_until(lambda: "which this version of Slipway" in server.log.read_text(), "the cause")
        login = {"username": "demo", "password": "demo-password"}
        answer = visitor.post("/v1/auth/login", json=login)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        down = alembic(url, "downgrade", HEAD, root=tmp_path / "newer")
        assert down.returncode == 0, down.stderr
        wait_until(lambda: visitor.get("/ready").status_code == 200, "the database")
        wait_until(lambda: visitor.post("/v1/auth/login", json=login).status_code == 200, "the first admin")
