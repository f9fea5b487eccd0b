"""Sequential randomisation test of a canary: is the new version worse than the pinned one? Pure, and exact.

Sessions (else users) are assigned to a version at random, so under "no difference" every other assignment of the same
units was as likely: the p-value is the share of assignments with a difference at least as large (Fisher 1935; with
1 added to both counts it is valid for a sample of them: Phipson and Smyth 2010). Runs of one unit may depend on each
other, as units are what is shuffled. Repeated looks are paid for in advance: `LOOKS` and the three measures share
`ALPHA` (Bonferroni), so a canary without a difference is rolled back with probability `ALPHA` at most, in all its life.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

LOOKS = (50, 75, 100, 150, 200, 300, 400, 600, 800, 1000)  # ended runs of the smaller side
MEASURES = ("failures", "cost", "feedback")
ALPHA = 0.05  # of ever rolling back a version that is no worse
LEVEL = ALPHA / (len(LOOKS) * len(MEASURES))
SHUFFLES = 2_000  # p-values down to 1/2001; `LEVEL` is 1/600
DEARER = (10, 11)  # dearer is by more than a tenth: new prompts are rarely of the same length to the token
TIES = 1e-9  # differences of means this close are equal


class Observation(NamedTuple):
    """Ended run of a canary or of its control group."""

    unit: str  # session, else user
    is_canary: bool
    failed: bool
    cost_nano: int
    score: int | None  # feedback


class _Sums(NamedTuple):
    """One measure: sum and number of values by unit, larger being worse."""

    totals: Sequence[int]
    counts: Sequence[int]
    whole_total: int
    whole_count: int

    def difference(self, units: Sequence[int]) -> float:
        """Return how much larger the mean is in these units than in the others; -1e99 without values on a side."""
        total, count = sum(map(self.totals.__getitem__, units)), sum(map(self.counts.__getitem__, units))
        others = self.whole_count - count
        if not count or not others:
            return -1e99
        return total / count - (self.whole_total - total) / others


def looks_due(smaller_side: int) -> int:
    """Return how many looks are due by this number of ended runs of the smaller side."""
    return sum(runs <= smaller_side for runs in LOOKS)


def worse_in(observations: Sequence[Observation], seed: int) -> str | None:
    """Return the measure in which the canary is worse at this look; None: in none."""
    places = {unit: place for place, unit in enumerate(dict.fromkeys(one.unit for one in observations))}
    canary = sorted({places[one.unit] for one in observations if one.is_canary})
    sums = {
        "failures": _by_unit(places, [(one.unit, int(one.failed)) for one in observations]),
        "cost": _by_unit(places, _cost_ranks(observations)),
        "feedback": _by_unit(
            places, [(one.unit, -one.score) for one in observations if one.score is not None]
        ),
    }
    return _significant(sums, canary, len(places), random.Random(seed))


def _significant(
    sums: Mapping[str, _Sums], canary: Sequence[int], units: int, rng: random.Random
) -> str | None:
    """Return the first measure with a p-value of at most `LEVEL`; each is given up once it cannot have one."""
    observed = {name: each.difference(canary) for name, each in sums.items()}
    open_ones = [name for name in MEASURES if observed[name] > TIES]
    exceeded = dict.fromkeys(MEASURES, 0)
    for _ in range(SHUFFLES):
        if not open_ones:
            return None
        chosen = rng.sample(range(units), len(canary))
        for name in open_ones:
            exceeded[name] += sums[name].difference(chosen) >= observed[name] - TIES
        open_ones = [name for name in open_ones if (1 + exceeded[name]) / (1 + SHUFFLES) <= LEVEL]
    return open_ones[0] if open_ones else None


def _by_unit(places: Mapping[str, int], values: Sequence[tuple[str, int]]) -> _Sums:
    totals, counts = [0] * len(places), [0] * len(places)
    for unit, value in values:
        totals[places[unit]] += value
        counts[places[unit]] += 1
    return _Sums(totals, counts, sum(totals), sum(counts))


def _cost_ranks(observations: Sequence[Observation]) -> list[tuple[str, int]]:
    """Return each run's rank by cost, doubled so that ties have whole ones; the pinned version's are `DEARER` first."""
    costs = sorted((one.cost_nano * DEARER[not one.is_canary], one.unit) for one in observations)
    ranks: list[tuple[str, int]] = []
    for _, group in groupby(costs, key=lambda pair: pair[0]):
        tied = list(group)
        ranks += [(unit, 2 * len(ranks) + len(tied) + 1) for _, unit in tied]
    return ranks
