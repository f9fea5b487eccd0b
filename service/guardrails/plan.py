"""Plan of one side's guardrails: which detectors run, and what makes a look at a place worth it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from service.guardrails.detectors.mail import match_mail
from service.guardrails.match import Answer, Window
from service.guardrails.patterns import Pattern
from service.guardrails.policy import KINDS, Action, SideSpec

Detector = Callable[[Window], Answer]
_MARK = r"\[[A-Z]"  # beginning of a placeholder


@dataclass(frozen=True, slots=True)
class Plan:
    """Compiled guardrails. `hot`: signs of a possible match; `rules` by the letter that they begin with."""

    side: SideSpec
    actions: dict[str, Action]
    hot: re.Pattern[str] | None
    detectors: tuple[Detector, ...]
    rules: tuple[tuple[str, Pattern], ...]
    vault: bool


@lru_cache(maxsize=64)
def plan_of(side: SideSpec, *, vault: bool) -> Plan:
    """Compile the guardrails of one side. `vault`: placeholders are used, so their look-alikes are escaped."""
    actions = {kind: side.action_of(kind) for kind in KINDS}
    actions |= {rule.name: rule.action for rule in side.rules}
    actions = {kind: action for kind, action in actions.items() if action is not Action.ALLOW}
    rules = tuple((rule.name, one) for rule in side.rules if rule.name in actions for one in rule.compiled())
    signs = [_MARK] if vault else []
    detectors: list[Detector] = []
    if "email" in actions:
        signs.append(r"@|[(\[{](?:at|AT|ät|arroba|chez)[)\]}]")
        detectors.append(match_mail)
    hot = re.compile("|".join(signs)) if signs else None
    return Plan(side, actions, hot, tuple(detectors), rules, vault)
