"""Empty limits and budgets mean none; other empty settings count as unset. Checked for every setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import ENVIRONMENTS, Settings, load
from tests.config.serving import faults, serving

NONE = {"limit_concurrent_runs": None, "limit_queued_runs": None}  # the others are texts
CAPS = [name for name in Settings.model_fields if name.startswith(("limit_", "budget_"))]
CAPS.remove("budget_webhook_url")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", CAPS)
@pytest.mark.parametrize("text", ["", " ", "none"])
def test_empty_limit_or_budget_means_none(environment: str, name: str, text: str) -> None:
    settings = load(serving(environment, **{name.upper(): text}))
    assert getattr(settings, name) == NONE.get(name, "")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - set(CAPS)))
def test_other_empty_settings_count_as_unset(environment: str, name: str) -> None:
    environ = serving(environment)
    if name.upper() in environ and environment in ("staging", "production"):
        assert set(faults({**environ, name.upper(): ""})) == {name.upper()}  # these have no default there
        return
    environ.pop(name.upper(), None)
    assert load({**environ, name.upper(): ""}) == load(environ)


def test_empty_file_equals_an_empty_variable(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    files = {"BUDGET_USER_DAY_USD_FILE": str(tmp_path / "empty"), "PORT_FILE": str(tmp_path / "empty")}
    settings = load(files)
    assert (settings.budget_user_day_usd, settings.port) == ("", 8000)
