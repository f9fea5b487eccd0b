"""Simulate canaries: how often one is rolled back without a difference, and with one.

`python -m scripts.canary_simulation` prints a line a scenario: canaries, how many were rolled back, and the
median number of the canary's ended runs by then. Units have a failure rate, cost level and number of runs of
their own, so runs of one depend on each other.
"""

from __future__ import annotations

import argparse
import random
import statistics
from typing import NamedTuple

from service.agents.canary_test import LOOKS, Observation, looks_due, worse_in


class Scenario(NamedTuple):
    """Traffic of a canary, and how its version differs."""

    name: str
    runs_per_unit: float = 1.5  # mean
    failing: float = 0.03
    failing_more: float = 0.0  # share of the canary's runs that fail besides
    dearer: float = 1.0  # factor of the canary's cost
    unhappier: float = 0.0  # share of the canary's good ratings that are bad ones instead


SCENARIOS = (
    Scenario("no difference"),
    Scenario("no difference, 10 runs of a unit", runs_per_unit=10),
    Scenario("no difference, a fifth fails", failing=0.2),
    Scenario("5 % dearer", dearer=1.05),
    Scenario("fails 10 points more often", failing_more=0.10),
    Scenario("fails 30 points more often", failing_more=0.30),
    Scenario("costs half more", dearer=1.5),
    Scenario("costs double", dearer=2.0),
    Scenario("half of the good ratings are bad", unhappier=0.5),
)


def simulate(scenario: Scenario, seed: int) -> tuple[str | None, int]:
    """Return in what one canary was found worse (None: in nothing), and after how many ended runs of it."""
    rng = random.Random(seed)
    seen: list[Observation] = []
    counts, looked, unit = [0, 0], 0, 0
    while min(counts) < LOOKS[-1]:
        unit += 1
        new = _runs_of(scenario, rng, f"u{unit}")
        for one in new:
            seen.append(one)
            counts[one.is_canary] += 1
            if (due := looks_due(min(counts))) > looked:
                looked = due
                if (found := worse_in(seen, seed * 100 + due)) is not None:
                    return found, counts[True]
    return None, counts[True]


def _runs_of(scenario: Scenario, rng: random.Random, unit: str) -> list[Observation]:
    is_canary = rng.random() < 0.5
    failing = scenario.failing * rng.choice((0, 0, 1, 3)) + scenario.failing_more * is_canary
    level = rng.lognormvariate(15, 1.0)
    runs = []
    for _ in range(1 + int(rng.expovariate(1 / max(0.01, scenario.runs_per_unit - 1)))):
        cost = level * rng.lognormvariate(0, 0.7) * (scenario.dearer if is_canary else 1.0)
        score = rng.choice((1, 1, 1, -1)) if rng.random() < 0.1 else None
        if score == 1 and is_canary and rng.random() < scenario.unhappier:
            score = -1
        runs.append(Observation(unit, is_canary, rng.random() < failing, int(cost), score))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--canaries", type=int, default=1_000, help="without a difference; with one, a fifth")
    wanted = parser.parse_args().canaries
    for scenario in SCENARIOS:
        count = wanted if scenario.name.startswith("no difference") else max(1, wanted // 5)
        results = [simulate(scenario, seed) for seed in range(count)]
        found = [runs for measure, runs in results if measure is not None]
        after = f", after {statistics.median(found):.0f} runs (median)" if found else ""
        print(f"{scenario.name}: {len(found)} of {count} rolled back{after}", flush=True)


if __name__ == "__main__":
    main()
