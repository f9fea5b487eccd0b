"""Exact tests for rates of passed evals: is the candidate worse than the baseline by more than chance?

Passes of a case are taken as independent, with a rate of its own. Small samples: nothing here is an approximation but
the interval that is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

Z95 = 1.959964  # of the normal distribution, two-sided 95 %
GRID = 400  # rates at which the unconditional test looks for its worst case
EQUAL = 1e-9  # relative difference up to which two probabilities count as equal


class Rate(NamedTuple):
    """Passed repeats of so many."""

    passed: int
    runs: int

    @property
    def share(self) -> float:
        return self.passed / self.runs if self.runs else 0.0

    def plus(self, other: Rate) -> Rate:
        return Rate(self.passed + other.passed, self.runs + other.runs)

    def minus(self, other: Rate) -> Rate:
        return Rate(self.passed - other.passed, self.runs - other.runs)


def wilson(rate: Rate) -> tuple[float, float]:
    """Return the Wilson interval of a rate, for 95 % confidence."""
    if not rate.runs:
        return 0.0, 1.0
    square = Z95 * Z95
    middle = (rate.passed + square / 2) / (rate.runs + square)
    spread = rate.share * (1 - rate.share) / rate.runs + square / (4 * rate.runs**2)
    half = Z95 * math.sqrt(spread) * rate.runs / (rate.runs + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def fisher(baseline: Rate, candidate: Rate) -> float:
    """Return Fisher's exact one-sided p: the candidate passes so rarely though its rate is no lower."""
    both = _margins(baseline, candidate)
    return min(1.0, sum(both[: candidate.passed - _least(baseline, candidate) + 1]))


@lru_cache(maxsize=4096)
def boschloo(baseline: Rate, candidate: Rate) -> float:
    """Return Boschloo's exact one-sided p: Fisher's p as the statistic, at the common rate that suits chance best.

    More powerful than Fisher's test, which is the more conservative the fewer repeats there are. At most 1 in 400
    off the supremum, which is looked for on a grid.
    """
    if not baseline.runs or not candidate.runs:
        return 1.0
    observed = fisher(baseline, candidate) * (1 + EQUAL)
    most = [
        _most_passed(passed, baseline.runs, candidate.runs, observed) for passed in range(baseline.runs + 1)
    ]
    rates = ((number + 0.5) / GRID for number in range(GRID))
    return min(1.0, max(_chance(baseline.runs, candidate.runs, most, rate) for rate in rates))


def stratified(pairs: Iterable[tuple[Rate, Rate]]) -> float:
    """Return the exact one-sided p that the candidates, all cases together, pass as rarely as this.

    Conditional on the passes of each case, so that cases may differ: the exact form of the Cochran-Mantel-Haenszel
    test, by convolution of hypergeometric distributions.
    """
    total, observed = [1.0], 0
    for baseline, candidate in pairs:
        if baseline.runs and candidate.runs:
            total = _convolved(total, _margins(baseline, candidate))
            observed += candidate.passed - _least(baseline, candidate)
    return min(1.0, sum(total[: observed + 1]))


def _most_passed(passed: int, baseline_runs: int, runs: int, observed: float) -> int:
    """Return the most passes of a candidate that is at least as bad as the observed one; -1: none is."""
    low, high = -1, runs
    while low < high:  # Fisher's p grows with the passes
        middle = (low + high + 1) // 2
        if fisher(Rate(passed, baseline_runs), Rate(middle, runs)) <= observed:
            low = middle
        else:
            high = middle - 1
    return low


def _chance(baseline_runs: int, runs: int, most: list[int], rate: float) -> float:
    """Return the chance of a table at least as bad, if both have this rate."""
    below, at_most = 0.0, [0.0]
    for weight in _binomial(runs, rate):
        below += weight
        at_most.append(below)
    return sum(
        weight * at_most[limit + 1]
        for weight, limit in zip(_binomial(baseline_runs, rate), most, strict=True)
    )


@lru_cache(maxsize=65_536)
def _binomial(runs: int, rate: float) -> tuple[float, ...]:
    return tuple(math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(runs + 1))


def _least(baseline: Rate, candidate: Rate) -> int:
    """Return the fewest passes of the candidate, given how many passes both have together."""
    return max(0, baseline.passed + candidate.passed - baseline.runs)


def _margins(baseline: Rate, candidate: Rate) -> list[float]:
    """Return the hypergeometric distribution of the candidate's passes, from the fewest possible on."""
    passed = baseline.passed + candidate.passed
    most = min(candidate.runs, passed)
    ways = [
        math.comb(candidate.runs, k) * math.comb(baseline.runs, passed - k)
        for k in range(_least(baseline, candidate), most + 1)
    ]
    total = sum(ways)
    return [way / total for way in ways]


def _convolved(one: list[float], other: list[float]) -> list[float]:
    total = [0.0] * (len(one) + len(other) - 1)
    for at, weight in enumerate(one):
        for more, factor in enumerate(other):
            total[at + more] += weight * factor
    return total
