"""Suggestions for a misspelt name: the closest one, or all names."""

from __future__ import annotations

from service.text.suggest import did_you_mean, unknown


def test_name_without_a_match_lists_all_names() -> None:
    assert did_you_mean("suport", ["support", "analyst"]) == "; did you mean 'support'?"
    assert did_you_mean("x" * 10_000, ["support"]) == ""
    assert unknown("zzz", ["b", "a"]) == "; there are: a, b"
    assert unknown("zzz", []) == "; there are: none"
