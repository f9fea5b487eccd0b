"""Environments: the documented differences, and development's cheapest models."""

from __future__ import annotations

import re

import pytest

from config import ENVIRONMENTS, Settings, load
from service.types import Usage
from service.usage.prices import ANTHROPIC, PriceTable, today
from tests.config.serving import faults, serving
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text()


def rows() -> dict[str, list[str]]:
    """Parse the table of environments: the cells of each setting."""
    table = PAGE.partition("## Environments")[2].partition("\n## ")[0]
    return {
        name.lower(): [cell.strip().strip("`") for cell in cells.split("|")]
        for name, cells in re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", table, re.M)
    }


@pytest.mark.parametrize("place", range(len(ENVIRONMENTS)))
def test_environment_table_matches_the_defaults(place: int) -> None:
    environment = list(ENVIRONMENTS)[place]
    settings = load(serving(environment))
    for name, cells in rows().items():
        value = getattr(settings, name)
        said = cells[place]
        if name.startswith("bootstrap_"):
            continue
        assert said == (str(value).lower() if isinstance(value, bool) else str(value)), name


def test_every_differing_default_is_in_the_table() -> None:
    built = [load(serving(environment)) for environment in ENVIRONMENTS]
    differing = {
        name
        for name in Settings.model_fields
        if len({str(getattr(settings, name)) for settings in built}) > 1
    }
    assert differing | {"bootstrap_username", "bootstrap_password"} == set(rows())


def test_log_level_rises_from_development_to_production() -> None:
    levels = [load(serving(name)).log_level for name in ("development", "staging", "production")]
    assert levels == ["DEBUG", "INFO", "WARNING"]


def test_cache_ttl_grows_from_development_to_production() -> None:
    lives = [load(serving(name)).cache_ttl_seconds for name in ("development", "staging", "production")]
    assert lives == sorted(set(lives))


def test_development_uses_the_cheapest_model() -> None:
    table, usage = PriceTable.load(), Usage(1000, 1000, 0, 0)
    text = (ROOT / "service" / "usage" / "prices.yaml").read_text()
    costs = {
        model: table.price(model, today()).cost(usage)
        for model in set(re.findall(r"^  - model: (\S+)$", text, re.M))
        if table.provider(model) == ANTHROPIC
    }
    cheapest = min(costs, key=lambda model: costs[model])
    settings = load({})
    assert {settings.model_simple, settings.model_medium, settings.model_complex} == {cheapest}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_staging_and_production_do_not_reload(environment: str) -> None:
    assert load({}).reload
    assert not load(serving(environment)).reload
    assert set(faults(serving(environment, RELOAD="true"))) == {"RELOAD"}
