"""Filter of one text as it arrives: personal data, secrets and rules, the same in any chunking.

Text goes on as soon as no match can begin in it. Where one may, it is held until that is decided, by at most `WINDOW`
characters of the text as it came: what is decided at a place depends on those alone, never on the chunks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from service.guardrails.effort import LOOK, RULE, TEXT, Effort
from service.guardrails.headings import Headings
from service.guardrails.match import WAIT, Match
from service.guardrails.plain_stream import PlainStream
from service.guardrails.plan import plan_of
from service.guardrails.policy import Action, SideSpec
from service.guardrails.vault import LITERAL, Vault
from service.guardrails.windows import CONTEXT, MOST_DASHES, begin_of_token, decide, next_start

_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\ufff9-\ufffb]"
)
_LONGEST_SWALLOWED = 16_000  # characters of a match that has no end
_OVERLAP = 64  # characters of a long match kept for its end


@dataclass(slots=True)
class Finding:
    """Matches of one kind in a text, and what was done to them."""

    kind: str
    action: Action
    count: int = 0


class Matches(Counter[tuple[str, str]]):
    """Numbers of matches by kind and action."""

    def count(self, findings: Sequence[Finding]) -> None:
        self.update({(one.kind, str(one.action)): one.count for one in findings})

    def told(self, where: str) -> list[dict[str, Any]]:
        """Return them as events and audit rows tell them."""
        return [
            {"where": where, "kind": kind, "action": action, "count": count}
            for (kind, action), count in self.items()
        ]


class Refused(Exception):
    """Text that the policy refuses. `kind` of the match; `before`: what may go on of the text before it."""

    def __init__(self, kind: str, before: str = "") -> None:
        super().__init__(f"the text holds what the guardrails refuse: {kind}")
        self.kind = kind
        self.before = before


class TextFilter:
    """Filter of one text. `side`: its policy; `vault`: of its session or run, None: `redact` masks.

    `effort`: what is left for all texts that belong together; None: this is the only one. Once it is spent, the text
    is refused as one that is too long is.
    """

    def __init__(self, side: SideSpec, vault: Vault | None = None, effort: Effort | None = None) -> None:
        self._plan = plan_of(side, vault=vault is not None)
        self._vault = vault
        self._effort = effort or Effort()
        self._effort.spend(TEXT)
        self._plain = PlainStream()
        self._headings = Headings()
        self._headed = 0  # the place up to which the headings were read
        self._at = 0  # the first place of the text in plain form that is not decided
        self._raw_at = 0  # the same in the text as it came
        self._long: Match | None = None  # that goes on beyond its window
        self._swallowed = ""
        self._room = 0  # characters that the long match may still take
        self._length = 0
        self._found: dict[str, Finding] = {}

    @property
    def findings(self) -> list[Finding]:
        """Return what was found, by kind: the same in any chunking."""
        return sorted(self._found.values(), key=attrgetter("kind"))

    def feed(self, text: str) -> str:
        """Take the next piece; return what may go on. Raises `Refused`."""
        limit, out = self._plan.side.max_length, list[str]()
        self._length += len(text)
        beyond = 0 if limit is None else max(0, self._length - limit)
        if not self._effort.spend(len(text)):
            self._refuse("length", out)
        self._clean(text[: len(text) - beyond], out)
        if beyond:
            self._refuse("length", out)
        return "".join(out)

    def close(self) -> str:
        """End the text; return the rest that may go on. Raises `Refused`."""
        out = list[str]()
        self._plain.finish()
        self._scan(out, final=True)
        if self._long is not None:
            self._end_long(out)
        return "".join(out)

    def _clean(self, text: str, out: list[str]) -> None:
        """Take control characters out, if the policy says so, and scan the rest at once: pieces would cost more."""
        action = self._plan.side.control_characters
        first = None if action is Action.ALLOW else _CONTROL.search(text)
        if first is None:
            self._take(text, out)
        elif action is Action.REFUSE:
            self._take(text[: first.start()], out)
            self._refuse("control_characters", out)
        else:
            cleaned, number = _CONTROL.subn("", text)
            self._count("control_characters", action, number)
            self._take(cleaned, out)

    def _take(self, text: str, out: list[str]) -> None:
        if self._plan.hot is None:
            out.append(text)
        elif text:
            self._plain.feed(text)
            self._scan(out, final=False)

    def _scan(self, out: list[str], *, final: bool) -> None:
        """Decide place by place, as far as the text has arrived."""
        if self._plan.hot is None:
            return
        while self._long is None or self._swallow(out, final=final):
            text = self._plain.text
            hot = self._plan.hot.search(text, self._at)
            if hot is None:
                self._release(len(text) if final else begin_of_token(self._plain, len(text), self._at), out)
                break
            self._release(begin_of_token(self._plain, hot.start(), self._at), out)
            start = next_start(self._plan, text, self._at, final=final)
            self._release(start, out)
            if len(text) - start <= MOST_DASHES and not text[start:].strip("-"):
                break
            answer = decide(self._plan, self._plain, start, self._column(start), final=final)
            if answer is WAIT:
                break
            if not self._effort.spend(LOOK + RULE * len(self._plan.rules_at(text[start]))):
                self._refuse("length", out)
            if isinstance(answer, Match):
                self._act(answer, out)
            else:
                self._release(next_start(self._plan, text, start + 1, final=final), out)
        if self._at > 4 * CONTEXT:
            self._column(self._at - CONTEXT)
            self._headed -= self._at - CONTEXT
            self._raw_at -= self._plain.drop(self._at - CONTEXT)
            self._at = CONTEXT

    def _column(self, place: int) -> str:
        """Return the heading of the column at a place, or at a later one that was read before."""
        if place > self._headed:
            self._headings.feed(self._plain.text[self._headed : place])
            self._headed = place
        return self._headings.here()

    def _release(self, place: int, out: list[str]) -> None:
        raw = self._plain.raw_place(place)
        out.append(self._plain.raw[self._raw_at : raw])
        self._at, self._raw_at = place, raw

    def _act(self, match: Match, out: list[str]) -> None:
        self._release(match.start, out)
        action = Action.REDACT if match.kind == LITERAL else self._plan.actions[match.kind]
        if match.kind != LITERAL:
            self._count(match.kind, action)
        if action is Action.REFUSE:
            self._refuse(match.kind, out)
        end = self._plain.raw_end(match.end)
        self._swallowed = self._plain.raw[self._raw_at : end]
        self._long, self._at, self._raw_at, self._room = match, match.end, end, _LONGEST_SWALLOWED
        if match.tail is None:
            self._end_long(out)

    def _swallow(self, out: list[str], *, final: bool) -> bool:
        """Take more of a long match; return whether it ended."""
        match = self._long
        assert match is not None and match.tail is not None
        text, last = self._plain.text, min(len(self._plain.text), self._at + self._room)
        more = match.tail.match(text, self._at, last)
        end = more.end() if more is not None else self._at
        ended = end < len(text) or final
        if match.until is not None:
            known = min(_OVERLAP, len(self._swallowed), self._at)
            found = match.until.search(text, self._at - known, end)
            if found is not None and found.end() >= self._at:
                ended, end = True, found.end()
        raw = self._plain.raw_end(end) if end > self._at else self._raw_at
        self._swallowed += self._plain.raw[self._raw_at : raw]
        self._room -= end - self._at
        self._at, self._raw_at = end, raw
        if ended:
            self._end_long(out)
        return ended

    def _end_long(self, out: list[str]) -> None:
        match, value = self._long, self._swallowed
        assert match is not None
        self._long, self._swallowed = None, ""
        redact = match.kind == LITERAL or self._plan.actions[match.kind] is Action.REDACT
        mark = self._vault.placeholder(match.kind, value) if redact and self._vault is not None else None
        out.append(mark or f"[{match.kind.upper()}]")

    def _count(self, kind: str, action: Action, number: int = 1) -> None:
        self._found.setdefault(kind, Finding(kind, action)).count += number

    def _refuse(self, kind: str, out: list[str]) -> None:
        self._found.setdefault(kind, Finding(kind, Action.REFUSE, 1))
        raise Refused(kind, "".join(out))


def filtered(
    text: str, side: SideSpec, vault: Vault | None = None, effort: Effort | None = None
) -> tuple[str, list[Finding]]:
    """Filter a whole text; return it with the findings. Raises `Refused`."""
    one = TextFilter(side, vault, effort)
    return one.feed(text) + one.close(), one.findings
