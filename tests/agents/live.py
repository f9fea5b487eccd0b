"""Catalog that reloads edited agents, and its log lines."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.agents.catalog import AgentCatalog
from tests.agents.house import REACT, TOOLS, load, write


@pytest.fixture
def live(tmp_path: Path) -> AgentCatalog:
    """One agent, `probe`, in a catalog that looks for edits."""
    write(tmp_path, agent_yaml=REACT + "tools: [look]\n", prompt_md="Be good.", tools_py=TOOLS)
    return load(tmp_path, reloads=True)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "slipway.agents")
    return caplog


def said(told: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines logged since the last call."""
    lines = [f"{one.getMessage()} {getattr(one, 'fault', '')}".strip() for one in told.records]
    told.clear()
    return lines
