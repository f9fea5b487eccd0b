"""Cases of real runs, as YAML for an author to complete: the question, the turns before it, and what was answered."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import TypeAdapter

from service.agents.eval_spec import MOST_CASES, EvalCase
from service.agents.marked_yaml import MarkedYaml, YamlFaults
from service.evals.whole_file import write_whole
from service.guardrails.filter import TextFilter
from service.guardrails.policy import Action, SideSpec
from service.sessions import Sessions
from service.store.database import Row
from service.text.sanitise import storable
from service.types import Message, Run, message_text, rfc3339

MAX_TURNS = 20  # newest ones before the question
MAX_ANSWER = 1_500  # characters of the answer that the comment has
MAX_TEXT = 20_000  # characters of a turn
WIDTH = 110  # columns of the text
CASES: TypeAdapter[tuple[EvalCase, ...]] = TypeAdapter(tuple[EvalCase, ...])
Mask = Callable[[str], str]
_MASKED = SideSpec(personal_data=Action.MASK, secret=Action.MASK)


class CannotAppend(Exception):
    """Raised when a file would not be valid any more. The message says why."""


def case_of(run: Run, sessions: Sessions, mask: Mask, feedback: Row | None = None) -> str:
    """Return an entry of `evals.yaml`, without expectations: the comment has the answer, tools and sources.

    `mask` is applied to every text of the run.
    """
    turns = [mask(text) for text in _turns_before(run, sessions)][-MAX_TURNS:]
    entry: dict[str, Any] = {"input": mask(run.request.question)[:MAX_TEXT]}
    if turns:
        entry["turns"] = [text[:MAX_TEXT] for text in turns]
    if context := orjson.loads(run.request.context or "{}"):
        entry["context"] = _masked(context, mask)
    entry["expect"] = {}
    written = yaml.safe_dump([entry], allow_unicode=True, sort_keys=False, width=WIDTH)
    return "".join(f"# {line}\n" for line in _about(run, mask, feedback)) + written


def masked(text: str) -> str:
    """Mask the personal data and secrets that the guardrails know."""
    whole = TextFilter(_MASKED)
    return whole.feed(text) + whole.close()


def _about(run: Run, mask: Mask, feedback: Row | None) -> Iterable[str]:
    """Yield comment lines; none has a line break, whatever users and models wrote."""
    result = run.result or {}
    yield f"Of {run.id}, {rfc3339(run.created_at)}, version {run.agent_version}: {run.status}."
    if feedback is not None:
        yield from _wrapped(f"Feedback {feedback['score']}: {mask(feedback['comment'] or 'no comment')}")
    yield from _wrapped(f"Answer: {mask(result.get('output', ''))[:MAX_ANSWER]}")
    tools = dict.fromkeys(tool["name"] for tool in result.get("tools", ()))
    sources = dict.fromkeys(source["uri"] for source in result.get("sources", ()))
    if tools:
        yield from _wrapped(f"Tools: {', '.join(tools)}")
    if sources:
        yield from _wrapped(f"Sources: {', '.join(map(mask, sources))}")
    yield "Say under `expect` what a good answer has: contains, tools, cites, judge. See docs/evals.md."


def _wrapped(text: str) -> list[str]:
    plain = "".join(letter if letter.isprintable() else " " for letter in storable(text))
    return textwrap.wrap(plain, WIDTH - 2) or [""]


def _masked(value: Any, mask: Mask) -> Any:
    """Mask the texts of JSON, its names and numbers too; a number that is masked becomes a text."""
    if isinstance(value, dict):
        return {mask(name): _masked(one, mask) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one, mask) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    told = mask(str(value))
    return value if told == str(value) else told


def _turns_before(run: Run, sessions: Sessions) -> list[str]:
    """Return the user's turns before a run's question, oldest first: of its session, then of its request."""
    own = [message_text(one) for one in run.request.messages if one["role"] == "user"]
    before = _branch(run, sessions) if run.request.session_id is not None else []
    return [text for text in (*before, *own[:-1]) if text.strip()]


def _branch(run: Run, sessions: Sessions) -> list[str]:
    """Return the user's turns of the session on the branch that leads to the run."""
    rows = {row["seq"]: row for row in sessions.transcript(run.request.session_id or "")}
    first = next((row for row in rows.values() if row["run_id"] == run.id), None)
    found: list[str] = []
    while first is not None:
        parent = first["parent_seq"] if first["parent_seq"] is not None else first["seq"] - 1
        first = rows.get(parent) if parent < first["seq"] else None
        if first is not None and first["role"] == "user":
            message: Message = {"role": "user", "content": first["content"]}
            found.append(message_text(message))
    return found[::-1]


def append(path: Path, cases: Sequence[str]) -> int:
    """Append cases to an `evals.yaml`, but for those it has; return how many. Raises `CannotAppend` and `OSError`."""
    before = path.read_text("utf-8") if path.exists() else ""
    known = {case.key for case in _parsed(path, before)} if before.strip() else set()
    new = [text for text in cases if not {case.key for case in _parsed(path, text)} <= known]
    if not new:
        return 0
    joined = "\n".join([before.rstrip("\n"), *new]) if before.strip() else "\n".join(new)
    if len(_parsed(path, joined)) > MOST_CASES:
        raise CannotAppend(f"{path} would have more than {MOST_CASES} cases.")
    write_whole(path, joined.encode())
    return len(new)


def _parsed(path: Path, text: str) -> tuple[EvalCase, ...]:
    try:
        return MarkedYaml(text).read(CASES)
    except YamlFaults as error:
        line, field, detail = error.faults[0]
        raise CannotAppend(f"{path} would have a fault in line {line}: {field}: {detail}.") from None
