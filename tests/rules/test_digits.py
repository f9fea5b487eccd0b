"""Rule: numbers are read as ASCII digits, without `isdigit`, `isdecimal`, `isnumeric` or `\\d`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# These look at text for digits of any script, and read no number from them.
TEXT_ALONE = {
    "config/secrets.py",
    "service/cache/normalise.py",
    "service/cache/semantic.py",
    "service/text/search_words.py",
    "service/llm/routing.py",
}
FILES = sorted(path for folder in ("service", "config") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_digits_are_ascii_digits(path: Path) -> None:
    if str(path.relative_to(ROOT)) in TEXT_ALONE:
        return
    tree = ast.parse(path.read_text())
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("isdigit", "isdecimal", "isnumeric"), f"line {node.lineno}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            assert "\\d" not in node.value, f"line {node.lineno}"
