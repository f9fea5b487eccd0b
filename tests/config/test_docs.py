"""Pages generated from the settings are up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import Settings, env_file
from config.base import is_limit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "arguments"), [("docs/settings.md", []), (".env.example", ["--env"])])
def test_settings_page_is_up_to_date(page: str, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "config", *arguments]
    # Whatever the machine's own settings are, the page is the same.
    environ = {**os.environ, "SLIPWAY_HOME": "/elsewhere", "APP_ENV": "production"}
    printed = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert (ROOT / page).read_text() == printed.stdout


def test_every_setting_is_on_both_pages() -> None:
    names = {"APP_ENV", *(name.upper() for name in Settings.model_fields)}
    assert set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)) == names
    table = (ROOT / "docs" / "settings.md").read_text().partition("## All settings")[2]
    assert set(re.findall(r"^\| `([A-Z_]+)`", table, re.M)) == names
    assert all(field.description for field in Settings.model_fields.values())


def test_every_line_of_env_example_is_valid(tmp_path: Path) -> None:
    """Check that the example changes nothing: a limit or budget empty there is none by default."""
    lines = re.sub(r"^#([A-Z_]+=)", r"\1", (ROOT / ".env.example").read_text(), flags=re.M)
    (tmp_path / ".env").write_text(lines)
    faults: dict[str, str] = {}
    environ = env_file.merge({}, faults, tmp_path / ".env")
    assert faults == {} and len(environ) == len(Settings.model_fields) + 1
    assert Settings.model_validate({**_set(environ)}) == Settings()


def _set(environ: dict[str, str]) -> dict[str, str]:
    """Return the values that `config.load` would use."""
    given = {name.lower(): text for name, text in environ.items() if name != "APP_ENV"}
    return {name: text for name, text in given.items() if text or is_limit(name)}
