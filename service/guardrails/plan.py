"""Plan of one side's guardrails: which detectors run, and what makes a look at a place worth it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from service.guardrails.detectors.birth_date import match_birth_date
from service.guardrails.detectors.card import match_card
from service.guardrails.detectors.iban import match_iban
from service.guardrails.detectors.ip import match_ip
from service.guardrails.detectors.mail import match_mail
from service.guardrails.detectors.national_ids import match_national_id
from service.guardrails.detectors.phone import match_phone
from service.guardrails.detectors.secrets import SIGNS, match_secret
from service.guardrails.match import Answer, Window
from service.guardrails.patterns import Pattern, sign_of_words
from service.guardrails.policy import KINDS, Action, SideSpec

Detector = Callable[[Window], Answer]
_START = r"(?<![0-9A-Za-z\u00c0-\u05ff])[^\W_]|[+(\[]|-----"
_MARK = r"\[[A-Z]"  # beginning of a placeholder
# In the order in which they are asked: of matches of the same length the first counts.
_DETECTORS: dict[str, Detector] = {
    "secret": match_secret,
    "email": match_mail,
    "iban": match_iban,
    "card": match_card,
    "national_id": match_national_id,
    "ip": match_ip,
    "birth_date": match_birth_date,
    "phone": match_phone,
}
_DIGIT = "[0-9]"
_SIGNS = dict.fromkeys(_DETECTORS, _DIGIT) | {
    "email": r"@|[(\[{](?:at|AT|ät|arroba|chez)[)\]}]",
    "ip": "[0-9]|[0-9A-Fa-f]:",
    "secret": SIGNS,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Compiled guardrails. `hot`: signs of a possible match; `start`: where one may begin."""

    side: SideSpec
    actions: dict[str, Action]
    hot: re.Pattern[str] | None
    start: re.Pattern[str]
    detectors: tuple[Detector, ...]
    rules: tuple[tuple[str, Pattern], ...]
    vault: bool


@lru_cache(maxsize=64)
def plan_of(side: SideSpec, *, vault: bool) -> Plan:
    """Compile the guardrails of one side. `vault`: placeholders are used, so their look-alikes are escaped."""
    actions = {kind: side.action_of(kind) for kind in KINDS}
    actions |= {rule.name: rule.action for rule in side.rules}
    actions = {kind: action for kind, action in actions.items() if action is not Action.ALLOW}
    active = [rule for rule in side.rules if rule.name in actions]
    rules = tuple((rule.name, one) for rule in active for one in rule.compiled())
    detectors = {kind: _DETECTORS[kind] for kind in _DETECTORS if kind in actions}
    signs = [_MARK] if vault else []
    signs += dict.fromkeys(_SIGNS[kind] for kind in detectors)
    starts = [_START]
    phrases = [phrase for rule in active for phrase in rule.words]
    if phrases:
        signs.append(sign_of_words(phrases))
    for one in (one for _, one in rules if not one.words):
        signs.append(one.sign())
        starts.append(rf"(?![^\W_])(?:{one.sign()})")
    hot = re.compile("|".join(signs)) if signs else None
    return Plan(
        side, actions, hot, re.compile("|".join([*starts, r"\Z"])), tuple(detectors.values()), rules, vault
    )
