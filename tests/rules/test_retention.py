"""Every table has its line in the table of retention, and no statement of the store changes rows without a bound."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from service.store.schema import metadata
from tests.conftest import ROOT

STORE = ROOT / "service" / "store"
# Statements that name no key and no limit, and why few rows are meant all the same.
FEW = {
    "tokens.revoke_all": "log-ins of one user, which must end at once",
    "addresses.remember": "20 of one user stay, so one goes",
    "addresses.forget": "at most 20, of one user",
    "workers.sweep": "as many as processes died an hour ago",
    "batches._move": "of one batch, whose size is bounded",
}


def test_every_table_has_its_line_of_retention() -> None:
    text = (ROOT / "docs" / "operator.md").read_text()
    section = text.partition("## Upkeep")[2].partition("\n## ")[0]
    cells = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")]
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(metadata.tables)


def statements() -> Iterator[tuple[str, str]]:
    """Every function of the store that deletes or updates, with its text."""
    for path in sorted(STORE.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            text = ast.unparse(node)
            if isinstance(node, ast.FunctionDef) and re.search(r"sa\.(delete|update)\(|_REVOKE", text):
                yield f"{path.stem}.{node.name}", text


def bounded(text: str) -> bool:
    """Whether it has a limit, or names rows by a column of their table's key or by a list of ids."""
    keys = {column.name for table in metadata.tables.values() for column in table.primary_key}
    named = re.findall(r"\.c\.(\w+) (?:==|in)|\.c\.(\w+)\.in_\(|\b(key) ==", text)
    return "limit" in text or bool({name for found in named for name in found} & (keys | {"key"}))


@pytest.mark.parametrize(("name", "text"), [pytest.param(*found, id=found[0]) for found in statements()])
def test_deletes_and_updates_are_bounded(name: str, text: str) -> None:
    assert bounded(text) or name in FEW, "name the rows by their key, or take a limit"


def test_a_sweep_without_a_bound_shows() -> None:
    assert not bounded("tx.execute(sa.delete(token_families).where(token_families.c.expires_at < before))")
    assert not bounded("tx.execute(sa.update(runs).where(runs.c.status == 'x').values(wake_at=1))")
