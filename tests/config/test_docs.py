"""The pages that are generated from the settings hold what is true now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "arguments"), [("docs/settings.md", []), (".env.example", ["--env"])])
def test_the_page_is_what_the_generator_prints(page: str, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "config", *arguments]
    # Whatever the machine's own settings are, the page is the same.
    environ = {**os.environ, "SLIPWAY_HOME": "/elsewhere", "APP_ENV": "production"}
    printed = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert (ROOT / page).read_text() == printed.stdout


def test_every_setting_is_explained_on_both_pages() -> None:
    names = {"APP_ENV", *(name.upper() for name in Settings.model_fields)}
    assert set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)) == names
    assert set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text(), re.M)) == names
    assert all(field.description for field in Settings.model_fields.values())
