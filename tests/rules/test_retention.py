"""Every table has its line in the table of retention, and no statement of the store changes rows without a bound."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from service.store.schema import metadata
from tests.conftest import ROOT

STORE = ROOT / "service" / "store"
CHANGES = re.compile(r"sa\.(?:delete|update)\(([\w.]+)\)")
# Statements that name neither a whole key nor a limit, and why few rows are meant all the same.
FEW = {
    "agent_versions.trim": "versions of one agent, each by its whole key",
    "memory.put": "one note, by its user, holder and digest",
    "memory.delete": "one note, by its user, holder and digest",
    "knowledge.update_scope": "one agent's sums in one workspace, by both",
    "knowledge.drop_build": "passages of one document, whose number is bounded",
    "knowledge.take_next_builds": "documents of one agent in one workspace, whose number is bounded",
    "mcp.accept": "one tool, by its server and name",
    "mcp._offer": "one tool, by its server and name",
    "mcp.delete_credential": "one credential, by its server and user",
    "approvals.close": "the calls of one run that wait for a person",
    "batches.wake": "the runs of batches just answered, whose size is bounded",
    "batches._update_sent": "of one batch, whose size is bounded",
    "budget_waits.wake": "runs just read by `page`, which has a limit",
    "budgets.make_stale": "end users of one key, whose number in a window is bounded",
    "budgets.warn": "the stripes of one cap",
    "keyring.destroy": "the keys of one user, one of each rotation",
    "keys.change": "one key",
    "keys.rotate": "one key",
    "keys.used": "keys that one process has seen in a minute",
    "personal_erasure.clear_account": "keys, addresses and identities of one user",
    "personal_erasure.end_log_ins": "log-ins of one user",
    "rollup._delete_sums": "of one day, before its roll-up starts: none, or the first few of an earlier one",
    "runs.announced": "runs just read by `waiting`, which has a limit",
    "users.forget": "identities of one user",
    "sign_in_addresses.forget": "at most 20, of one user",
    "signing_keys.retire": "rotations within the life of a refresh token",
    "token_families._end": "log-ins of a user or a workspace, which must end at once",
    "workers.sweep": "as many as processes died an hour ago",
}


def test_every_table_has_its_line_of_retention() -> None:
    text = (ROOT / "docs" / "operator.md").read_text()
    section = text.partition("## Upkeep")[2].partition("\n## ")[0]
    cells = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")]
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(metadata.tables)


class Change(NamedTuple):
    """Text of a function, or of a statement beside the functions, that deletes or updates rows of a table.

    `table` is its name in the text: `runs`, or `key.table` for a table that is known by a column of it.
    """

    name: str
    text: str
    table: str

    @property
    def bounded(self) -> bool:
        """Tell whether it has a limit, names rows by their whole key, or by a list of ids."""
        if ".limit(" in self.text:
            return True
        if self.table.endswith(".table"):
            return f"{self.table.removesuffix('.table')} ==" in self.text
        table = metadata.tables.get(self.table)
        return table is not None and all(map(self._names, table.primary_key))

    def _names(self, column: sa.Column[object]) -> bool:
        """Tell whether rows are named by a column: equal to a value, or one of a list. A query needs a limit."""
        name = rf"{self.table}\.c\.{column.name}"
        listed = rf"|{name}\.in_\(" if "sa.select(" not in self.text else ""
        return re.search(rf"{name} =={listed}", self.text) is not None


def changes(source: str, module: str) -> Iterator[Change]:
    """Find what deletes or updates; a statement beside the functions that lacks a bound counts where it is used."""
    tree = ast.parse(source)
    texts = {name: ast.unparse(node) for node in tree.body for name in _names_of(node)}
    constants = {name: text for name, text in texts.items() if re.fullmatch("_?[A-Z_]+", name)}
    alias = {
        each.asname: each.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
        if each.asname
    }
    for name, text in texts.items():
        for table in sorted(set(CHANGES.findall(text))):
            used = "".join(constants[each] for each in constants if re.search(rf"\b{each}\b", text))
            found = Change(f"{module}.{name}", _unaliased(text + used, alias), alias.get(table, table))
            if found.bounded or name not in constants:
                yield found
                continue
            for user in [each for each in texts if each != name and re.search(rf"\b{name}\b", texts[each])]:
                yield Change(f"{module}.{user}", _unaliased(texts[user], alias) + found.text, found.table)


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def _unaliased(text: str, alias: dict[str, str]) -> str:
    for short, name in alias.items():
        text = re.sub(rf"\b{short}\.c\.", f"{name}.c.", text)
    return text


FOUND = [found for path in sorted(STORE.glob("*.py")) for found in changes(path.read_text(), path.stem)]


@pytest.mark.parametrize("change", [pytest.param(found, id=f"{found.name}-{found.table}") for found in FOUND])
def test_what_deletes_or_updates_is_bounded(change: Change) -> None:
    assert change.bounded or change.name in FEW, "name the rows by their key, or take a limit"


def test_every_exception_is_a_statement_without_a_bound() -> None:
    assert set(FEW) == {found.name for found in FOUND if not found.bounded}


@pytest.mark.parametrize(
    "statement",
    [
        "sa.delete(token_families).where(token_families.c.expires_at < before)",
        "sa.update(runs).where(runs.c.status == 'x').values(wake_at=1)",
        "sa.delete(batch_items).where(batch_items.c.run_id == run_id)",  # part of other tables' keys
        "sa.delete(messages).where(messages.c.session_id == session_id)",  # half a key
        "sa.delete(runs).where(runs.c.id.in_(sa.select(steps.c.run_id)))",  # a query without a limit
    ],
)
def test_a_sweep_without_a_bound_shows(statement: str) -> None:
    for source in (
        f"def sweep(tx):\n    tx.execute({statement})",
        f"_ALL = {statement}\ndef sweep(tx): use(_ALL)",
    ):
        (found,) = changes(source, "module")
        assert (found.name, found.bounded) == ("module.sweep", False)
