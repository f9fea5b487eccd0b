"""Test of a canary: false alarms over all looks, power, dependent runs, and margins. Seeded; at scale: the script."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.canary_simulation import Scenario, simulate
from service.agents.canary_test import (
    ALPHA,
    LEVEL,
    LOOKS,
    MEASURES,
    SHUFFLES,
    Observation,
    looks_due,
    worse_in,
)


@dataclass
class Side:
    """Runs of one side, each of a session of its own."""

    is_canary: bool
    runs: int = 50
    failures: int = 1
    cost: int = 1_000
    score: int | None = None

    def observations(self) -> list[Observation]:
        return [
            Observation(f"{self.is_canary} {n}", self.is_canary, n < self.failures, self.cost + n, self.score)
            for n in range(self.runs)
        ]


def compared(canary: Side, pinned: Side | None = None) -> str | None:
    return worse_in([*canary.observations(), *(pinned or Side(False)).observations()], seed=1)


def test_looks_are_fixed_in_advance_and_share_the_rate_of_false_alarms() -> None:
    assert [looks_due(runs) for runs in (0, 49, 50, 74, 75, 999, 1000, 10**6)] == [0, 0, 1, 1, 2, 9, 10, 10]
    assert LEVEL * len(LOOKS) * len(MEASURES) <= ALPHA
    assert 1 / (1 + SHUFFLES) <= LEVEL, "else no difference could ever be found"


def test_each_measure_is_found_at_the_first_look() -> None:
    assert compared(Side(True)) is None
    assert compared(Side(True, failures=25)) == "failures"
    assert compared(Side(True, cost=2_000)) == "cost"
    assert compared(Side(True, score=-1), Side(False, score=1)) == "feedback"


def test_better_and_slightly_dearer_are_not_worse() -> None:
    assert compared(Side(True, cost=1_080)) is None, "within the margin of a tenth"
    assert compared(Side(True, cost=500), Side(False, failures=25)) is None
    assert compared(Side(True, score=1), Side(False, score=-1)) is None
    assert compared(Side(True, score=-1)) is None, "nobody rated the other side"


def test_one_session_that_always_fails_proves_nothing() -> None:
    """Its runs are one observation of how sessions do, not fifty."""
    one = [Observation("loop", True, True, 1_000, None) for _ in range(50)]
    fine = [Observation(f"other {n}", True, False, 1_000, None) for n in range(50)]
    assert worse_in([*one, *fine, *Side(False, runs=100).observations()], seed=1) is None


def test_without_runs() -> None:
    assert worse_in([], seed=1) is None
    assert worse_in(Side(True).observations(), seed=1) is None


def test_seeded_canaries_without_a_difference_stay_and_worse_ones_go() -> None:
    same = Scenario("no difference", runs_per_unit=3)
    assert [simulate(same, seed)[0] for seed in range(8)] == [None] * 8
    failing = Scenario("fails more often", failing_more=0.3)
    assert [simulate(failing, seed)[0] for seed in range(4)] == ["failures"] * 4
