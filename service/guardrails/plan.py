"""Plan of one side's guardrails: which detectors run, and what makes a look at a place worth it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
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
from service.guardrails.policy import KINDS, STRICTNESS, Action, SideSpec

Detector = Callable[[Window], Answer]
Detectors = tuple[tuple[int, Detector], ...]
_START = r"(?<![0-9A-Za-z\u00c0-\u05ff])[^\W_]|[+(\[]|-----"
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
# Fewest digits of a match.
_LEAST_DIGITS = {"iban": 10, "card": 12, "national_id": 6, "ip": 4, "birth_date": 4, "phone": 7}
# Kinds of which no match begins with `+`, `(` or `[`, with a digit, with a letter.
_NEVER_AT_SIGN = frozenset({"secret", "iban", "card", "national_id", "ip", "birth_date"})
_NEVER_AT_DIGIT = frozenset({"iban"})
_NEVER_AT_LETTER = frozenset({"card", "phone"})
_MOST_CHARACTERS = 4_096  # whose rules are remembered
_DIGITS = tuple("0123456789")
# Plain texts, one of which is in each match: a search for many of those is fast.
_SIGNS = dict.fromkeys(_DETECTORS, _DIGITS) | {
    "email": (
        "@",
        "(at)",
        "(AT)",
        "[at]",
        "[AT]",
        "{at}",
        "(ät)",
        "(arroba)",
        "[arroba]",
        "(chez)",
        "[chez]",
    ),
    "secret": (*_DIGITS, *SIGNS),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Compiled guardrails. `hot`: signs of a possible match; `start`: where one may begin.

    `detectors`: of what begins with a sign, a digit or a letter, each with the fewest digits of its matches.
    """

    side: SideSpec
    actions: dict[str, Action]
    hot: re.Pattern[str] | None
    start: re.Pattern[str]
    detectors: tuple[Detectors, ...]
    rules: tuple[tuple[str, Pattern], ...]
    vault: bool
    _rules_at: dict[str, tuple[tuple[str, Pattern], ...]] = field(default_factory=dict, compare=False)

    def rules_at(self, character: str) -> tuple[tuple[str, Pattern], ...]:
        """Return the rules of what may begin with a character."""
        known = self._rules_at.get(character)
        if known is None:
            known = tuple(one for one in self.rules if one[1].may_begin(character))
            if len(self._rules_at) < _MOST_CHARACTERS:
                self._rules_at[character] = known
        return known

    def detectors_at(self, character: str) -> Detectors:
        """Return the detectors of what may begin with a character."""
        return self.detectors[0 if character in "+([" else 1 if character in "0123456789" else 2]


@lru_cache(maxsize=64)
def plan_of(side: SideSpec, *, vault: bool) -> Plan:
    """Compile the guardrails of one side. `vault`: placeholders are used, so their look-alikes are escaped."""
    actions = {kind: side.action_of(kind) for kind in KINDS}
    for rule in side.rules:  # two may have one name: of a workspace and of an agent
        actions[rule.name] = max(actions.get(rule.name, rule.action), rule.action, key=STRICTNESS.__getitem__)
    actions = {kind: action for kind, action in actions.items() if action is not Action.ALLOW}
    active = [rule for rule in side.rules if rule.name in actions]
    rules = tuple((rule.name, one) for rule in active for one in rule.compiled())
    kinds = [kind for kind in _DETECTORS if kind in actions]
    signs = ["["] if vault else []  # a placeholder begins with it
    signs += dict.fromkeys(sign for kind in kinds for sign in _SIGNS[kind])
    starts = [_START]
    hot = [*map(re.escape, signs)]
    hot += sign_of_words(phrase for rule in active for phrase in rule.words)
    for one in (one for _, one in rules if not one.words):
        hot.append(one.sign())
        starts.append(rf"(?![^\W_])(?:{one.sign()})")
    return Plan(
        side=side,
        actions=actions,
        hot=re.compile("|".join(hot)) if hot else None,
        start=re.compile("|".join(starts)),
        detectors=tuple(
            tuple((_LEAST_DIGITS.get(kind, 0), _DETECTORS[kind]) for kind in kinds if kind not in never)
            for never in (_NEVER_AT_SIGN, _NEVER_AT_DIGIT, _NEVER_AT_LETTER)
        ),
        rules=rules,
        vault=vault,
    )
