"""Compose files pass every setting as a variable, and each secret as a file too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from config import Settings, load

ROOT = Path(__file__).parents[2]
SETTINGS = {"APP_ENV", *(name.upper() for name in Settings.model_fields)}
SECRETS = {name.upper() for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
FILES = SECRETS | {"DATABASE_URL", "KEYRING_URL"}  # their passwords are such
DECIDED = {"HOST", "PORT", "SLIPWAY_HOME"}  # by the Compose file itself: its other parts count on them
DEMO = {
    "APP_ENV",
    "DATABASE_URL",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_KEY",
}  # what makes a demo of it, and the sign-in
ELSEWHERE = {"MAIL_URL", "CALENDAR_URL"}  # addresses that mcp.yaml reads
SERVICES = ("slipway-1", "slipway-2", "worker", "migrate")


class Loader(yaml.SafeLoader):
    """YAML with Compose's own tags, as their names."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def services(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / file).read_text(), Loader)
    return loaded


COMPOSE = services("docker-compose.yml")


@pytest.mark.parametrize("service", SERVICES)
def test_compose_passes_every_setting(service: str) -> None:
    environment = COMPOSE["services"][service]["environment"]
    names = {name for name in environment if name.removesuffix("_FILE") not in FILES or name in FILES}
    assert names == SETTINGS | ELSEWHERE, "add the setting to docker-compose.yml"
    for name in names - DECIDED:
        value = environment[name]
        # Without a value Compose takes it from the shell or from `.env`, and leaves it out where neither has it.
        assert value is None or re.fullmatch(rf"\$\{{{name}:-[^}}]+\}}", value), name


@pytest.mark.parametrize("service", SERVICES)
def test_compose_accepts_every_secret_as_a_file(service: str) -> None:
    told = COMPOSE["services"][service]
    for name in FILES:
        file = name.lower()
        assert told["environment"][f"{name}_FILE"] == f"${{{name}_FILE-/run/secrets/{file}}}"
        assert file in told["secrets"]
        assert COMPOSE["secrets"][file] == {"file": f"./secrets/{file}"}


def test_docs_create_every_secret() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    (made,) = [block for block in blocks if "secrets/secret_key" in block and "mkdir" in block]
    observed = re.findall(r"> secrets/([a-z_]+)", (ROOT / "docs" / "observability.md").read_text())
    assert set(re.findall(r"secrets/([a-z_]+)", made)) | set(observed) == set(COMPOSE["secrets"])


def test_demo_compose_changes_only_demo_settings() -> None:
    demo = services("docker-compose.override.yml")
    assert demo["services"]["slipway-1"]["environment"].keys() == (
        DEMO | {"BOOTSTRAP_USERNAME", "BOOTSTRAP_PASSWORD"} | {f"{name}_FILE" for name in FILES}
    )


def test_empty_secret_file_counts_as_unset(tmp_path: Path) -> None:
    """Allow empty files for unused secrets, as Compose requires the files to exist."""
    empty = tmp_path / "jwt_private_key"
    empty.touch()
    settings = load(
        {"APP_ENV": "testing", "JWT_PRIVATE_KEY_FILE": str(empty), "SEMANTIC_CACHE_KEY_FILE": str(empty)}
    )
    assert settings.jwt_private_key.get_secret_value() == settings.semantic_cache_key.get_secret_value() == ""
