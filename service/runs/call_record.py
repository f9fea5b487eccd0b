"""Record of a run's tool calls: the results from which a fork answers the same calls."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from service.runs.branch_rows import branch_of
from service.runs.journal_codec import decode_result
from service.store.database import Row
from service.tools import ToolResult
from service.types import Block, Event


class _Asked(NamedTuple):
    """Call as it was asked for, in which branch; None: by the run's own agent."""

    branch: str | None
    key: str


class CallRecord:
    """Results by tool and arguments, those of the same call in the order in which it was made.

    The n-th such call of a fork gets the n-th result, and later ones the last. A sub-agent gets those of the same
    branch first.
    """

    def __init__(self, results: Mapping[_Asked, Sequence[ToolResult]], branch: str | None = None) -> None:
        self._results = results
        self._branch = branch
        self._taken: Counter[str] = Counter()

    def of_branch(self, branch: str) -> CallRecord:
        """Return the record for a sub-agent, which counts its own calls."""
        return CallRecord(self._results, branch)

    def find(self, use: Block, before: Sequence[Block] = ()) -> ToolResult | None:
        """Find the result of a call; `before`: those of the same reply that are answered first."""
        key = _key(use["name"], use["input"])
        found = self._results.get(_Asked(self._branch, key)) or self._results.get(_Asked("", key))
        if not found:
            return None
        same = sum(_key(other["name"], other["input"]) == key for other in before)
        return found[min(self._taken[key] + same, len(found) - 1)]

    def take(self, use: Block) -> None:
        """Count a call that was answered: also one of a stored step, so that each attempt counts the same."""
        self._taken[_key(use["name"], use["input"])] += 1


def record_of(rows: Sequence[Row], claims: Mapping[str, Row]) -> CallRecord:
    """Build the record of a run from its steps, and its claimed calls whose step was never finished.

    A call is known by what the model asked for: a person may have approved it with other arguments.
    """
    proposed = {block["id"]: block for row in rows for block in _proposed(row)}
    told = _told(rows)
    results: defaultdict[_Asked, list[ToolResult]] = defaultdict(list)
    answered: set[str] = set()

    def add(branch: str | None, call_id: str, name: str, arguments: Any, stored: Mapping[str, Any]) -> None:
        block = proposed.get(call_id) or {"name": name, "input": arguments}
        key = _key(block["name"], block["input"])
        for place in {branch, ""}:  # "": of any branch
            results[_Asked(place, key)].append(decode_result(stored))
        answered.add(call_id)

    for row in rows:
        if row["kind"] == "tools":
            branch = branch_of(row)
            calls = told[branch]
            for stored in row["reply"]["results"]:
                if calls:
                    call = calls.pop(0)
                    add(branch, call["call_id"], call["name"], call["arguments"], stored)
    for call_id, claim in claims.items():
        if call_id not in answered and claim["status"] in ("done", "failed"):
            add("", call_id, claim["name"], claim["arguments"], claim["result"])
    return CallRecord(results)


def _proposed(row: Row) -> Iterable[Block]:
    return (block for block in row["reply"].get("content") or () if block.get("type") == "tool_use")


def _told(rows: Sequence[Row]) -> defaultdict[str | None, list[Mapping[str, Any]]]:
    """Return the data of each call's first `tool.called`, by branch, in order; sub-agents are told as calls too."""
    told: defaultdict[str | None, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        for _, name, data in row["events"]:
            if name == Event.TOOL_CALLED and not data["name"].startswith("agent:"):
                told[data.get("branch")].setdefault(data["call_id"], data)
    return defaultdict(list, {branch: list(calls.values()) for branch, calls in told.items()})


def _key(name: str, arguments: Any) -> str:
    return json.dumps([name, arguments], sort_keys=True)
