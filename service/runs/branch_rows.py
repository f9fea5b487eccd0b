"""Stored steps of sub-agents, among the rows of their run."""

from __future__ import annotations

from collections.abc import Sequence

from service.runs.step_row import call_ids
from service.store.database import Row

AGENT = "agent"  # kind of a step row that stores the result of a sub-agent
GATEWAY = "g"  # branch of gateway calls, after that of their agent


def branch_of(row: Row) -> str | None:
    """Return the branch of a step row; None: the step is the lead's."""
    branch: str | None = row["reply"].get("branch")
    return branch


def is_gateway_call(row: Row) -> bool:
    """Return whether a step row is stored while the step of its agent is under way."""
    return (branch_of(row) or "").endswith(GATEWAY)


class BranchRows:
    """Rows by branch, each in the order of its steps."""

    def __init__(self, stored: Sequence[Row]) -> None:
        self._rows: dict[str, list[Row]] = {}
        for row in stored:
            if (branch := branch_of(row)) is not None:
                self._rows.setdefault(branch, []).append(row)

    def of(self, branch: str) -> list[Row]:
        return list(self._rows.get(branch, ()))

    def forget(self) -> None:
        """Forget all: their lead takes other steps than before."""
        self._rows = {}

    @property
    def steps(self) -> int:
        """Number of model and tool steps."""
        return sum(row["kind"] != AGENT for rows in self._rows.values() for row in rows)

    @property
    def call_ids(self) -> set[str]:
        """Ids of the tool calls that models asked for."""
        return call_ids(row for rows in self._rows.values() for row in rows)
