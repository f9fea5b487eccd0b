"""The patterns by name. A new one is a module with `run`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from service.agents.pattern import Pattern
from service.agents.patterns import react, router, single

PATTERNS: Mapping[str, Pattern] = {"react": react.run, "router": router.run, "single": single.run}
