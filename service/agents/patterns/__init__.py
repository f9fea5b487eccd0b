"""Patterns by name. A new one is a module with `run`, `Options` and `check`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from service.agents.pattern import PatternModule
from service.agents.patterns import react, router, single

PATTERNS: Mapping[str, PatternModule] = {"react": react, "router": router, "single": single}
