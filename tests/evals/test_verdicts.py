"""Two stages: what they miss, and how often they cry wolf, over simulated models."""

from __future__ import annotations

import random

import pytest

from service.evals.statistics import Rate
from service.evals.verdicts import CONFIRMED, FALSE_ALARMS, FALSE_ALARMS_TOGETHER, Compared, Verdicts


def trial(seed: random.Random, was: list[float], now: list[float], repeat: int) -> bool:
    """Return whether a run of evals reports a regression."""

    def rate(share: float, runs: int) -> Rate:
        return Rate(sum(seed.random() < share for _ in range(runs)), runs)

    cases = {
        str(at): Compared(rate(then, repeat), rate(today, repeat))
        for at, (then, today) in enumerate(zip(was, now, strict=True))
    }
    verdicts = Verdicts(cases, {"probe": list(cases)})
    for at, key in enumerate(cases):
        while verdicts.missing(key):
            cases[key].again = cases[key].again.plus(rate(now[at], min(5, verdicts.missing(key))))
    return bool(verdicts.regressed() or verdicts.together())


@pytest.mark.parametrize(("cases", "repeat"), [(1, 1), (5, 5), (5, 10), (20, 10)])
def test_false_alarms_are_as_rare_as_stated(cases: int, repeat: int) -> None:
    seed, trials = random.Random(7), 400
    same = [0.9] * cases
    alarms = sum(trial(seed, same, same, repeat) for _ in range(trials))
    assert alarms <= 3 * trials * (FALSE_ALARMS + FALSE_ALARMS_TOGETHER)


@pytest.mark.parametrize(
    ("cases", "repeat", "drops", "power"),
    [(5, 10, 0.0, 1.0), (20, 10, 0.0, 1.0), (5, 5, 0.0, 0.97), (5, 20, 0.3, 0.85)],
)
def test_a_case_that_drops_is_caught(cases: int, repeat: int, drops: float, power: float) -> None:
    seed, trials = random.Random(7), 100
    was = [0.9] * cases
    caught = sum(trial(seed, was, [drops, *was[1:]], repeat) for _ in range(trials))
    assert caught >= power * trials


def test_a_small_drop_in_all_cases_is_caught_together() -> None:
    seed, was = random.Random(7), [0.9] * 20
    caught = sum(trial(seed, was, [0.6] * 20, 10) for _ in range(20))
    assert caught == 20


def test_one_repeat_tells_only_of_a_collapse() -> None:
    case = Compared(Rate(1, 1), Rate(0, 1))
    verdicts = Verdicts({str(at): case for at in range(20)}, {})
    assert case.suspicious and not verdicts.regressed()
    assert verdicts.missing("0") == CONFIRMED - 1
    case.again = Rate(0, CONFIRMED - 1)
    assert verdicts.regressed()
    case.again = Rate(1, CONFIRMED - 1)
    assert not verdicts.regressed()


def test_asking_again_ends_once_nothing_could_be_shown() -> None:
    case = Compared(Rate(9, 10), Rate(6, 10), Rate(10, 10))
    assert Verdicts({"a": case}, {"probe": ["a"]}).missing("a") == 0
    assert Verdicts({"a": Compared(Rate(9, 10), Rate(9, 10))}, {}).missing("a") == 0
