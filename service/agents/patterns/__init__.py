"""Patterns by name. To add one: a module with `run`, `Options` and `check`, and an entry here."""

from __future__ import annotations

from collections.abc import Mapping

from service.agents.pattern import PatternModule
from service.agents.patterns import code, orchestrator, react, reflection, remote, research, router, single

PATTERNS: Mapping[str, PatternModule] = {
    "code": code,
    "orchestrator": orchestrator,
    "react": react,
    "reflection": reflection,
    "remote": remote,
    "research": research,
    "router": router,
    "single": single,
}
