"""Comparison with a baseline: which cases are asked again, and which have regressed.

Two stages keep both the cost and the false alarms low. A case that did worse than in its baseline is asked again, up to
`CONFIRMED` times in all, and only then judged, by a test at a level shared by all cases. Asking again raises no false
alarm: the test would hold its level had every case been asked that often, and it is made for fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.evals.statistics import Rate, boschloo, stratified

# Most runs of evals that report a regression where there is none: of single cases, and of an agent's cases together.
FALSE_ALARMS = 0.009
FALSE_ALARMS_TOGETHER = 0.001
# p of the first stage up to which a case is asked again: a case asked once and failed has 0.25.
SUSPICIOUS = 0.2501
CONFIRMED = 30  # repeats in all after which a suspicious case is judged
FACTOR = 2  # the same, as a multiple of the first stage's repeats if that is more


@dataclass(slots=True)
class Compared:
    """Case with its baseline: `first` of the first stage, `again` of the second."""

    baseline: Rate
    first: Rate
    again: Rate = field(default=Rate(0, 0))

    @property
    def candidate(self) -> Rate:
        return self.first.plus(self.again)

    @property
    def p(self) -> float:
        return boschloo(self.baseline, self.candidate)

    @property
    def suspicious(self) -> bool:
        worse = self.first.share < self.baseline.share
        return worse and boschloo(self.baseline, self.first) <= SUSPICIOUS

    @property
    def most_runs(self) -> int:
        return max(CONFIRMED, FACTOR * self.first.runs)

    @property
    def collapsed(self) -> bool:
        """Return whether it passed each time, and now never: told also for a baseline of one repeat."""
        was, now = self.baseline, self.candidate
        return was.passed == was.runs > 0 and now.passed == 0 and now.runs >= CONFIRMED


class Verdicts:
    """Cases of one run of evals with their baselines, by key. `groups`: keys by agent."""

    def __init__(self, cases: Mapping[str, Compared], groups: Mapping[str, list[str]]) -> None:
        self.cases = cases
        self._groups = groups

    @property
    def level(self) -> float:
        """Largest p of a case that regressed."""
        return FALSE_ALARMS / max(1, len(self.cases))

    def missing(self, key: str) -> int:
        """Return how many repeats a suspicious case still needs; 0 once no outcome of them would be a regression."""
        case = self.cases[key]
        left = case.most_runs - case.candidate.runs
        if not case.suspicious or left <= 0:
            return 0
        worst = Compared(case.baseline, case.first, case.again.plus(Rate(0, left)))
        return left if self._regressed(worst) else 0

    def regressed(self) -> list[str]:
        """List keys of regressed cases: judged only after the second stage."""
        judged = {
            key: case
            for key, case in self.cases.items()
            if case.suspicious and case.candidate.runs >= case.most_runs
        }
        return [key for key, case in judged.items() if self._regressed(case)]

    def _regressed(self, case: Compared) -> bool:
        return case.p <= self.level or case.collapsed

    def together(self) -> dict[str, float]:
        """Return agents whose cases, all together, pass less often, with p: a small drop in many cases.

        By the first stage only: cases are asked again because they did badly.
        """
        level = FALSE_ALARMS_TOGETHER / max(1, len(self._groups))
        found = {name: stratified(self._pairs(keys)) for name, keys in self._groups.items()}
        return {name: p for name, p in found.items() if p <= level}

    def _pairs(self, keys: list[str]) -> list[tuple[Rate, Rate]]:
        return [(self.cases[key].baseline, self.cases[key].first) for key in keys]
