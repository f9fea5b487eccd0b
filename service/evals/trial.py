"""One repeat of a case: its turns asked as real runs, approvals decided as the case says, the last answer judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from service import approvals
from service.agents.definitions import AgentDefinition
from service.agents.eval_spec import EvalCase
from service.errors import BudgetExceeded, SlipwayError
from service.evals.expectations import unmet
from service.evals.judge import Judge, NoJudgement
from service.evals.outcome import Answered, Called, Outcome
from service.ids import new_id
from service.store import approvals as approval_rows
from service.store import steps as step_rows
from service.store.approvals import Decision
from service.store.database import Row, Transaction
from service.types import Block, Caller, Message, Run, RunRequest, RunStatus
from service.wiring import Services

MAX_DECISIONS = 50  # rounds of approvals of one run
AWAY = (429, 503)  # statuses that tell of the service or the model, and not of the agent


class Ended(Exception):
    """Raised when a turn before the last one leaves nothing to judge."""

    def __init__(self, missing: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.missing = missing
        self.problem = problem or {}


@dataclass
class Trial:
    """Repeat of a case by a caller of its own."""

    services: Services
    caller: Caller
    agent: AgentDefinition
    case: EvalCase
    judge: Judge
    runs: list[Run] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)

    def run(self) -> Outcome:
        """Ask, and judge. Never raises for what an agent, a model or the service does."""
        try:
            answered = self._ask()
            missing = list(unmet(self.case.expect, answered))
            if answered.error is not None and missing:
                raise Ended(missing[0], answered.error)
            said = self._judged(answered) if not missing else ""
        except Ended as ended:
            return self._outcome([ended.missing], ended.problem)
        except SlipwayError as error:  # a run could not begin
            return self._outcome([error.detail], error.as_problem())
        except NoJudgement as none:
            return self._outcome([f"no judgement: {none.problem.get('detail')}"], none.problem)
        return self._outcome([*missing, *([said] if said else [])], {})

    def _ask(self) -> Answered:
        """Ask every turn; return the last one."""
        session_id = self.services.sessions.begin_for(self.caller, self.agent.id) if self.case.turns else None
        for number, turn in enumerate(self.case.turns, 1):
            run = self._turn(session_id, turn, [])
            if run.status is not RunStatus.SUCCEEDED:
                why = run.error["detail"] if run.error else f"it is {run.status}"
                raise Ended(f"turn {number} of {len(self.case.turns) + 1} failed: {why}", run.error)
        self.waited.clear()
        documents = [
            _document(one.document, one.text) for one in self.case.inject if one.document is not None
        ]
        return self._answered(self._turn(session_id, self.case.input, documents))

    def _turn(self, session_id: str | None, text: str, documents: Sequence[Block]) -> Run:
        message: Message = {"role": "user", "content": text}
        if documents:
            message["content"] = [*documents, {"type": "text", "text": text}]
        context = orjson.dumps(self.case.context).decode() if self.case.context else None
        request = RunRequest(
            self.agent.id, (message,), session_id=session_id, context=context, cache="bypass", on_cap="fail"
        )
        run = self.services.runs.start.invoke(self.caller, request, None, new_id("req")).run
        for _ in range(MAX_DECISIONS):
            if run.status is not RunStatus.WAITING_APPROVAL or not self._decide(run.id):
                break
            self.services.runs.execution.take_up_in_background(run.id)
            run = self.services.runs.queries.wait(run.id)
        self.runs.append(run)
        return run

    def _decide(self, run_id: str) -> bool:
        """Decide about the calls that wait, as the case says. False: it says nothing about one of them."""
        db = self.services.infra.db
        rows = [
            approvals.get(db, self.caller, one)
            for one in db.query(lambda tx: approval_rows.pending(tx, run_id))
        ]
        self.waited += [row["name"] for row in rows]
        if not all(row["name"] in (*self.case.approve, *self.case.deny) for row in rows):
            return False
        for row in rows:
            db.transact(self._decision(row))
        return bool(rows)

    def _decision(self, row: Row) -> Callable[[Transaction], object]:
        said = Decision("approve" if row["name"] in self.case.approve else "deny", None, None, new_id("dec"))
        return lambda tx: approvals.decide(tx, self.caller, row["id"], said)

    def _answered(self, run: Run) -> Answered:
        steps = self.services.infra.db.query(lambda tx: step_rows.of_run(tx, run.id))
        replies = [(row["name"], row["reply"]["content"]) for row in steps if row["kind"] == "model"]
        calls = [
            Called(block["name"], block["input"])
            for _, content in replies
            for block in content
            if block.get("type") == "tool_use"
        ]
        labels = (self.agent.options.parse_label(name, _text(content)) for name, content in replies)
        return Answered(
            result=run.result or self.services.runs.queries.result(run),
            calls=calls,
            waited=tuple(self.waited),
            category=next((label for label in labels if label is not None), None),
            cost_nano=sum(one.cost_nano for one in self.runs),
            folder=self.agent.folder,
            error=run.error,
        )

    def _judged(self, answered: Answered) -> str:
        """Return why a judge fails the answer; empty: it passes, or there is no rubric."""
        rubric = self.case.expect.judge
        if rubric is None:
            return ""
        asked = [*self.case.turns, self.case.input]
        given = self.judge.judge(self.caller, rubric, asked, answered.result["output"])
        return "" if given.passed else f"judged: {given.reason}"

    def _outcome(self, missing: Sequence[str], problem: Mapping[str, Any]) -> Outcome:
        last = self.runs[-1] if self.runs else None
        result = (last.result if last else None) or {}
        return Outcome(
            missing=tuple(missing),
            output=result.get("output", ""),
            run_ids=tuple(run.id for run in self.runs),
            cost_nano=sum(run.cost_nano for run in self.runs),
            seconds=(result.get("latency_ms") or 0) / 1000,
            steps=result.get("steps", 0),
            capped=problem.get("code") == BudgetExceeded.code or any(map(_was_shortened, self.runs)),
            unavailable=problem.get("status") in AWAY,
        )


def _was_shortened(run: Run) -> bool:
    """Return whether the answer had fewer tokens than the agent's, to fit under the cap."""
    return "max_tokens_clamped" in (run.result or {})


def _text(content: Sequence[Block]) -> str:
    return "".join(block.get("text", "") for block in content)


def _document(title: str, text: str) -> Block:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, "title": title}
