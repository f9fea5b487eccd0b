"""`flask` without a web server: in this process, over a database of its own and the offline model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from config import load
from service.app import create_app
from service.cli.common import Progress
from service.store import token_families
from service.wiring import Services
from tests.cli.house import Flask_, env, flask, services, table, whole
from tests.conftest import PYTHON, ROOT

__all__ = ["env", "flask", "services", "whole"]


# --- users and keys ---------------------------------------------------------------------------------------


def test_users_are_added_listed_and_disabled(flask: Flask_, services: Services) -> None:
    added = flask("users", "add", "grace", "--role", "operator", stdin="grace-password\ngrace-password\n")
    assert added.stdout.splitlines()[-1].startswith("Added operator grace (usr_")
    assert services.auth.users.sign_in("grace", "grace-password", "192.0.2.1").role == "operator"
    flask("users", "password", "grace", "--password-stdin", stdin="another-password\n")
    services.auth.users.sign_in("grace", "another-password", "192.0.2.1")
    flask("users", "disable", "grace")
    listed = {user["username"]: user for user in json.loads(flask("users", "list", "--json").stdout)}
    assert listed["grace"]["disabled"] and not listed["ada"]["disabled"]
    flask("users", "disable", "grace", "--undo")
    assert flask("users", "webhook-secret", "grace").stdout.startswith("whsec_")
    assert ["ada", "user"] in [line[1:3] for line in table(flask("users", "list"))]


def test_byte_order_mark_is_stripped_from_a_password(flask: Flask_, services: Services) -> None:
    flask("users", "add", "marked", "--password-stdin", stdin="\ufeffmarked-password\r\n")
    assert services.auth.users.sign_in("marked", "marked-password", "192.0.2.1").username == "marked"


def test_invalid_input_is_a_one_line_error(flask: Flask_) -> None:
    taken = flask("users", "add", "ada", "--password-stdin", stdin="ada-password\n", code=1)
    assert taken.stderr.startswith("Error: ") and len(taken.stderr.splitlines()) == 1
    short = flask("users", "add", "eve", "--password-stdin", stdin="short\n", code=1)
    assert "/password" in short.stderr
    assert flask("users", "disable", "nobody", code=1).stderr == "Error: There is no user nobody.\n"


def test_keys_are_made_listed_and_revoked(flask: Flask_, services: Services) -> None:
    made = flask("keys", "add", "ada", "laptop", "--scope", "agents:support", "--days", "7")
    key = made.stdout.strip()
    assert services.auth.keys.caller(key).scopes == ("agents:support",)
    [listed] = json.loads(flask("keys", "list", "ada", "--json").stdout)
    assert listed["name"] == "laptop" and "key" not in listed
    flask("keys", "limit", "ada", listed["id"], "5/minute")
    assert services.auth.keys.caller(key).key_limit_runs == "5/minute"
    flask("keys", "limit", "ada", listed["id"], "none")
    other = flask("keys", "rotate-secret", "ada", listed["id"], "--overlap", "60").stdout.strip()
    assert {services.auth.keys.caller(secret).key_id for secret in (key, other)} == {listed["id"]}
    flask("keys", "revoke", "ada", listed["id"])
    assert flask("keys", "list", "ada").stdout == "ada has no keys.\n"
    assert "--scope" in flask("keys", "add", "ada", "x", "--scope", "everything", code=2).stderr


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x1b[31mb", "\udcff"])
def test_key_name_that_cannot_be_kept_is_refused(flask: Flask_, name: str) -> None:
    assert "/name: " in flask("keys", "add", "ada", name, code=1).stderr
    assert flask("keys", "list", "ada").stdout == "ada has no keys.\n"


def test_signing_keys_are_rotated(flask: Flask_, services: Services) -> None:
    signing = services.auth.tokens.keys
    first = signing.current()
    shown = flask("keys", "rotate").stdout
    signing.refresh()
    assert [key["kid"] for key in signing.jwks()["keys"]] == [first.kid, shown.split()[1]]
    assert signing.current().kid == first.kid  # until all processes know the new one
    shown = flask("keys", "rotate", "--stolen").stdout
    signing.refresh()
    assert [key["kid"] for key in signing.jwks()["keys"]] == [signing.current().kid] == [shown.split()[1]]
    assert "refuses the tokens of other keys" in shown


def test_every_command_has_help(whole: Flask) -> None:
    for name, group in whole.cli.commands.items():
        commands: dict[str, Any] = getattr(group, "commands", {})
        for command in commands.values():
            assert command.help, f"flask {name} {command.name}"


def test_flask_program_needs_no_server(env: dict[str, str], whole: Flask) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "flask", "users", "list"],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "root" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("number", ["١٢", "１２", "²", "1_0"])
@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list", "--limit"),
        ("runs", "replay", "run_x", "--speed"),
        ("keys", "add", "ada", "laptop", "--days"),
    ],
)
def test_numbers_are_ascii_digits(flask: Flask_, command: tuple[str, ...], number: str) -> None:
    assert command[-1] in flask(*command, number, code=2).stderr


def test_cap_amount_is_ascii_digits(flask: Flask_) -> None:
    refused = flask("budgets", "set", "service", "١٢", code=1)
    assert "is not an amount such as 12.50" in refused.stderr


def test_unmigrated_database_is_reported(env: dict[str, str], tmp_path: Path) -> None:
    app = create_app(load({**env, "SLIPWAY_HOME": str(tmp_path)}))
    try:
        result = app.test_cli_runner().invoke(args=["users", "list"])
    finally:
        app.extensions["slipway"].close()
    assert result.exit_code == 1
    assert "run `alembic upgrade head`" in result.output.splitlines()[-1]


def test_progress_of_a_long_read(capsys: pytest.CaptureFixture[str]) -> None:
    class Chatty(Progress):
        EVERY = 0.0

    progress = Chatty(300)
    for _ in range(4):
        progress.read(100)
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("100 of about 300 rows read, 33 %, about ") and second.startswith(
        "200 of about 300"
    )
    assert [line.split(" in ")[0] for line in rest] == ["300 rows read", "400 rows read"]
    Progress(None).read(100)
    assert capsys.readouterr().err == "", "nothing where it is quick"


def test_user_is_shown_and_changed(flask: Flask_, services: Services) -> None:
    services.auth.users.create("judy", "judy-password")
    flask("users", "role", "judy", "operator")
    assert "5/minute" in flask("users", "limit", "judy", "5/minute").stdout
    shown = json.loads(flask("users", "show", "judy").stdout)
    assert (shown["role"], shown["limit_runs"]) == ("operator", "5/minute")
    flask("users", "limit", "judy", "none")
    assert json.loads(flask("users", "show", "judy").stdout)["limit_runs"] is None
    user = services.auth.users.by_name("judy")
    assert user is not None
    services.auth.tokens.begin(user)
    assert services.infra.db.query(token_families.any_live)
    flask("users", "logout", "judy")
    assert not services.infra.db.query(token_families.any_live)
