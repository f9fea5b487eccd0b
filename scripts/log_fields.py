"""Print the fields of all log events, a section of docs/logs.md: `python -m scripts.log_fields`.

Read from the code: each call of a logger gives its event, its level and the fields of `extra`. Fields that a call has
from elsewhere are in `ELSEWHERE`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "agent_server")
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
# Fields that are put together by another function than the one that logs, by event.
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "request": ("method", "route", "status", "outcome", "ms", "llm_ms", "slow", "share"),
    "webhook_delivered": ("run_id", "approval_id", "notice_id"),
    "webhook_failed": ("run_id", "approval_id", "notice_id"),
    "budget_warning": (
        "percent",
        "scope",
        "period",
        "amount_usd",
        "spent_usd",
        "reserved_usd",
        "left_usd",
        "renews_at",
    ),
    "audit_broken": ("seq", "audit_id", "fault"),
    "schedule_refused": ("error_code",),
    "schedule_run": ("run_id",),
    "agent_canary_rolled_back": ("runs", "failures", "cost", "feedback"),
    "upkeep": (
        "idempotency_keys",
        "runs",
        "notices",
        "schedule_slots",
        "sessions",
        "logins",
        "signing_keys",
        "addresses",
        "task_turns",
        "counters",
    ),
}
BY_OUTCOME = {"request": {"INFO", "WARNING"}}  # of which the level is no word in the code


class Found(NamedTuple):
    """One call of a logger."""

    event: str
    level: str
    fields: tuple[str, ...]


def found() -> Iterator[Found]:
    """Yield every call that names its event."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _of_function(function)


def _of_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Found]:
    for call in ast.walk(function):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr not in (*LEVELS, "log") or not ast.unparse(call.func.value).endswith("log"):
            continue
        name = call.args[1 if call.func.attr == "log" else 0]
        extra = next((word.value for word in call.keywords if word.arg == "extra"), None)
        fields = tuple(_fields(extra, function)) if extra is not None else ()
        for event in (part.value for part in ast.walk(name) if isinstance(part, ast.Constant)):
            yield Found(str(event), LEVELS.get(call.func.attr, ""), fields)


def _fields(value: ast.expr, function: ast.AST) -> Iterator[str]:
    """Yield the keys of a dict, also of those that it is made of within the function."""
    if isinstance(value, ast.Dict):
        for key, inner in zip(value.keys, value.values, strict=True):
            if key is None:
                yield from _fields(inner, function)
            elif isinstance(key, ast.Constant):
                yield str(key.value)
    elif isinstance(value, ast.Name):
        for made in ast.walk(function):
            if isinstance(made, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == value.id for target in made.targets
            ):
                yield from _fields(made.value, function)
    elif isinstance(value, ast.BinOp):
        yield from _fields(value.left, function)
        yield from _fields(value.right, function)


def schema() -> dict[str, tuple[set[str], list[str]]]:
    """Return levels and fields of each event, by name."""
    made: dict[str, tuple[set[str], list[str]]] = {}
    for event, level, fields in found():
        levels, known = made.setdefault(event, (set(BY_OUTCOME.get(event, ())), []))
        levels.update({level} - {""})
        known += [name for name in (*fields, *ELSEWHERE.get(event, ())) if name not in known]
    return dict(sorted(made.items()))


def table() -> str:
    lines = ["| `event` | level | fields |", "| --- | --- | --- |"]
    for event, (levels, fields) in schema().items():
        named = ", ".join(f"`{name}`" for name in dict.fromkeys(fields))
        lines.append(f"| `{event}` | {', '.join(sorted(levels))} | {named} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
