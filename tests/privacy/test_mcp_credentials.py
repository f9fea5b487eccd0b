"""Credentials of users towards MCP servers: never in the clear, never exported, and gone with their user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import yaml

from service.auth.users import User
from service.mcp.credentials import NoCredential
from tests.conftest import Model
from tests.privacy.house import House, house_in, postgres_url, url

__all__ = ["postgres_url", "url"]
SERVER = {"url": "http://127.0.0.1:9/mcp", "credentials": "user", "tools": {"read": {"risk": "read"}}}


@pytest.fixture
def house(tmp_path: Path, url: str, model: Model, scratch: Path) -> Iterator[House]:
    file = tmp_path / "servers.yaml"
    file.write_text(yaml.safe_dump({"servers": {"box": SERVER}}))
    with house_in(tmp_path, url, model, scratch, MCP_SERVERS=str(file)) as made:
        yield made


def keep(house: House, user: User, secret: str) -> None:
    told = house.app.test_cli_runner().invoke(
        args=["mcp", "credential", "set", "box", "--user", user.username], input=f"{secret}\n"
    )
    assert told.exit_code == 0 and secret not in told.output, told.output


def owners(house: House) -> int:
    return sum(name == "rows of mcp_credentials" for name, _ in house.state())


def test_credential_of_a_user_is_never_told_and_ends_with_the_user(house: House) -> None:
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    ada, bob = house.create(house.words, root), house.create(house.kept, root)
    secrets = {ada.id: house.words.word(), bob.id: house.kept.word()}
    for user in (ada, bob):
        keep(house, user, secrets[user.id])
    found = house.services.mcp.credentials.find
    assert found("box", "user", ada.id) == secrets[ada.id]
    told = b"".join(content for _, content in house.state())
    assert not any(secret.encode() in told for secret in secrets.values())
    exported = house.ask(root, f"GET /v1/admin/users/{ada.id}/export").data
    lines = [orjson.loads(line) for line in exported.splitlines()]
    [line] = [line for line in lines if line["kind"] == "mcp_credential"]
    assert line["server"] == "box" and "secret" not in line
    assert secrets[ada.id].encode() not in exported
    assert owners(house) == 2
    house.erased(ada.id)
    assert owners(house) == 1
    with pytest.raises(NoCredential):
        found("box", "user", ada.id)
    assert found("box", "user", bob.id) == secrets[bob.id]
    assert not house.words.found(house.state())
