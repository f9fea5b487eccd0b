"""Folders of agents that tests write, and what they may refer to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from service.agents.catalog import AgentCatalog
from service.agents.last_good import LastGood
from service.agents.loader import Available
from service.agents.patterns import PATTERNS
from service.mcp.config import load as mcp_servers
from service.mcp.pins import Pins
from service.mcp.tools import McpTools
from service.tools.sources import SOURCES
from service.types import Tier
from service.usage.prices import PriceTable

MODELS: dict[Tier, str] = {
    "simple": "claude-haiku-5-5",
    "medium": "claude-sonnet-5-5",
    "complex": "claude-opus-5-5",
}
AVAILABLE = Available(PATTERNS, SOURCES, MODELS, PriceTable.load())
GOOD = """\
description: A test agent.
pattern: single
"""
REACT = "description: A test agent.\npattern: react\n"
TOOLS = """\
from service.tools import tool

@tool(idempotent=True, risk="read")
def look(at: str) -> str:
    "Look at something."
    return at

@tool()
def send(to: str) -> str:
    "Send something."
    return to
"""


def load(agents_dir: Path, *, reloads: bool = False, **options: Any) -> AgentCatalog:
    """As one process does; those of one folder share what they know to be good."""
    last_good = LastGood(agents_dir / ".last-good") if reloads else None
    return AgentCatalog(agents_dir, AVAILABLE, last_good=last_good, **options)


def bundled() -> AgentCatalog:
    """The agents of this repository, with the tools of its `mcp.yaml`, which are not reached."""
    root = Path(__file__).parents[2]
    nothing: Any = None
    tools = McpTools(mcp_servers(root / "mcp.yaml").servers, Pins(nothing), nothing, nothing)
    return AgentCatalog(root / "agents", replace(AVAILABLE, sources=(*SOURCES, tools)))


def write(agents_dir: Path, name: str = "probe", **files: str | bytes | None) -> Path:
    """Write files of an agent's folder, `__` for a slash and `_` for a dot; one that is None is left as it is."""
    for key, text in files.items():
        path = agents_dir / name / key.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return agents_dir
