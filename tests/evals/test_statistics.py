"""Exact tests against their definitions."""

from __future__ import annotations

import math
from itertools import product

import pytest

from service.evals.statistics import Rate, boschloo, fisher, stratified, wilson


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [(Rate(9, 10), 0.5958, 0.9821), (Rate(0, 10), 0, 0.2775), (Rate(10, 10), 0.7225, 1)],
)
def test_wilson_interval(rate: Rate, low: float, high: float) -> None:
    """Values of Newcombe (1998), method 3."""
    assert wilson(rate) == pytest.approx((low, high), abs=5e-4)
    assert wilson(Rate(0, 0)) == (0.0, 1.0)


def test_fisher_is_the_hypergeometric_tail() -> None:
    assert fisher(Rate(5, 5), Rate(0, 5)) == pytest.approx(1 / math.comb(10, 5))
    assert fisher(Rate(4, 5), Rate(1, 5)) == pytest.approx((5 * 5 + 1) / math.comb(10, 5))
    assert fisher(Rate(3, 5), Rate(5, 5)) == 1


def test_boschloo_has_more_power_and_keeps_its_level() -> None:
    """At every true rate, no more than `level` of all tables of two equal agents have a p of at most `level`."""
    runs, level = 8, 0.05
    tables = list(product(range(runs + 1), repeat=2))
    p = {(b, c): boschloo(Rate(b, runs), Rate(c, runs)) for b, c in tables}
    assert all(p[b, c] <= fisher(Rate(b, runs), Rate(c, runs)) + 1e-9 for b, c in tables)
    for rate in (number / 50 for number in range(1, 50)):
        weight = [math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(runs + 1)]
        assert sum(weight[b] * weight[c] for b, c in tables if p[b, c] <= level) <= level + 1e-9
    assert boschloo(Rate(5, 5), Rate(0, 5)) == pytest.approx(0.5**10, rel=1e-3)
    assert boschloo(Rate(0, 0), Rate(0, 5)) == 1


def test_cases_together_tell_of_small_drops() -> None:
    assert stratified([]) == 1
    alone = stratified([(Rate(9, 10), Rate(7, 10))])
    assert alone == pytest.approx(fisher(Rate(9, 10), Rate(7, 10)))
    assert stratified([(Rate(9, 10), Rate(7, 10))] * 10) < alone / 20
    # A case that always failed tells nothing, whichever way it is asked.
    assert stratified([(Rate(9, 10), Rate(7, 10)), (Rate(0, 10), Rate(0, 10))]) == pytest.approx(alone)
