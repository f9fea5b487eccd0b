"""Rule: tests assert counts and orders of events, never durations, which a busy machine would fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLOCKS = frozenset({"monotonic", "perf_counter", "process_time", "thread_time", "elapsed", "total_seconds"})
FILES = sorted((ROOT / "tests").rglob("*.py"))


def reads_clock(node: ast.AST, names: frozenset[str] = frozenset()) -> bool:
    """Whether a clock is read in it, or one of `names` is used."""
    return any(
        (isinstance(each, ast.Attribute) and each.attr in CLOCKS)
        or (isinstance(each, ast.Name) and each.id in names)
        for each in ast.walk(node)
    )


def timed(source: str) -> list[int]:
    """Lines of the asserts over a clock, or over a difference of its readings."""
    tree = ast.parse(source)
    spans = frozenset(
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and reads_clock(node.value)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.op, ast.Sub)
    )
    asserts = (node for node in ast.walk(tree) if isinstance(node, ast.Assert))
    return [node.lineno for node in asserts if reads_clock(node.test, spans)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_time_is_asserted(path: Path) -> None:
    assert timed(path.read_text()) == []


def test_the_rule_sees_them() -> None:
    assert timed("began = time.monotonic()\nassert time.monotonic() - began < 2") == [2]
    assert timed("took = perf.perf_counter() - began\nassert took < 2") == [2]
    assert timed("assert answer.elapsed.total_seconds() < 1") == [1]
    assert timed("end = time.monotonic() + 5\nassert answer.status_code == 200") == []
