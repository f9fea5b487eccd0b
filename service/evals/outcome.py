"""Outcome of one repeat of a case, and what of it the expectations are checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Called(NamedTuple):
    """Tool call that the model asked for, whether or not it was made."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """Last turn of a case: its run's result, its calls, and the tools that waited for a person.

    `cost_nano`: of all turns. `folder`: the agent's, where the files of its sources are.
    """

    result: dict[str, Any]
    calls: Sequence[Called]
    waited: Sequence[str]
    category: str | None
    cost_nano: int
    folder: Path
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Repeat of a case. `missing`: expectations that are not met; empty: passed."""

    missing: tuple[str, ...]
    output: str = ""
    run_ids: tuple[str, ...] = ()
    cost_nano: int = 0
    seconds: float = 0.0
    steps: int = 0
    capped: bool = False  # the cap was reached: no verdict
    unavailable: bool = False  # the model or a part was away: no verdict

    @property
    def passed(self) -> bool:
        return not self.missing

    @property
    def counts(self) -> bool:
        """Return whether it tells of the agent, and not of a cap or of an outage."""
        return not self.capped and not self.unavailable
