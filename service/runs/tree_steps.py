"""Steps of a lead: besides its own, sub-agents that work side by side in its run.

The tree is bounded before it starts: the model calls that its sub-agents may make are within those of the run, and the
most that all of them may cost is held at once. They share the run's row, deadline and stop handle.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.agents.pattern import (
    AgentResult,
    AgentTask,
    Events,
    Join,
    PatternModule,
    TreeLimits,
    most_steps,
)
from service.errors import RunLimit
from service.runs.attempt import Attempt
from service.runs.branch import Branch, Shared, Stopped
from service.runs.branch_journal import questions_of
from service.runs.result import tools_used
from service.runs.steps import RunSteps, StepDependencies
from service.runs.tool_execution import WaitsForApproval
from service.runs.untrusted import answer_hosts
from service.store.transaction import WriteInTransaction
from service.types import RunEvent
from service.usage.estimate import TreeEstimate


class TreeSteps(RunSteps):
    """`service.agents.pattern.Steps` of a run: `RunSteps`, and `agents`."""

    def __init__(
        self,
        dependencies: StepDependencies,
        agent: AgentDefinition,
        attempt: Attempt,
        catalog: AgentCatalog,
        patterns: Mapping[str, PatternModule],
    ) -> None:
        super().__init__(dependencies, agent, attempt)
        self._catalog = catalog
        self._patterns = patterns
        self._begun = 0  # branches, which are numbered in the order of their tasks

    def agents(
        self, tasks: Sequence[AgentTask], limits: TreeLimits, join: Join | None = None
    ) -> Events[list[AgentResult]]:
        """Run sub-agents; see `service.agents.pattern.Steps`. Raises `WaitsForApproval` once no branch can go on."""
        self._count_steps_of([*(task.agent for task in tasks), *([join.agent] if join else [])], join is None)
        branches = [self._branch(task) for task in tasks]
        shared = Shared(self._call_ids | self._journal.branch_rows.call_ids)
        waiting: list[Branch] = []
        results: list[AgentResult] = []
        try:
            waiting = yield from self._together(branches, limits, shared)
            if not waiting:
                results = [branch.take(self._attempt) for branch in branches]
                if join is not None:
                    last = self._branch(AgentTask(join.agent, join.text(results)))
                    waiting = yield from self._together([last], limits, shared)
                    results += [] if waiting else [last.take(self._attempt)]
        finally:
            if shared.tree is not None:
                self._journal.write_with_next(self._deps.spending.end_tree(shared.tree).work)
        if waiting:
            yield from self._wait_for_approvals(waiting)
        self._call_ids |= shared.ids
        self._attempt.tools_used[:] = tools_used(
            self._journal.events.for_result
        )  # in the order they were told
        if join is not None and results[-1].ok:
            text = self._attempt.text
            text.begin(answer_hosts(self._attempt.taint, self._agent))
            yield from text.write(results[-1].output)
            yield from text.end()
        return results

    def _branch(self, task: AgentTask) -> Branch:
        self._begun += 1
        return Branch(self._attempt, task, str(self._begun))

    def _together(
        self, branches: Sequence[Branch], limits: TreeLimits, shared: Shared
    ) -> Events[list[Branch]]:
        """Execute branches side by side to their ends; return those that wait for approvals.

        Raises the first error that ends the run: the others then begin no further step.
        """
        left = [branch for branch in branches if branch.stored is None]
        if left and shared.tree is None:
            yield from self._hold_tree(limits.cost_nano, shared)
        told: SimpleQueue[RunEvent | None] = SimpleQueue()  # bounded by the steps of the branches
        with ThreadPoolExecutor(limits.at_once, f"branch-{self._run.id}") as pool:
            try:
                for branch in left:
                    agent = self._catalog.agents.get(branch.task.agent)
                    pattern = self._patterns.get(agent.pattern) if agent is not None else None
                    if agent is not None:
                        agent = self._deps.tool_execution.permitted(agent, self._run)
                        agent = self._deps.documents.of(agent, self._run, self._journal, shared.tree)
                    work = contextvars.copy_context().run
                    pool.submit(work, branch.execute, self._deps, agent, pattern, shared, told.put)
                over = 0
                while over < len(left):
                    event = told.get()  # every branch ends: its waits have the run's deadline
                    if event is None:
                        over += 1
                    else:
                        yield event
            except BaseException:
                shared.stop.set()
                raise
        waiting = [branch for branch in left if isinstance(branch.error, WaitsForApproval)]
        errors = [branch.error for branch in left if branch.error is not None and branch not in waiting]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return waiting

    def _count_steps_of(self, names: Sequence[str], lead_joins: bool) -> None:
        """Count the model calls that sub-agents may make as steps of this run. Raises `RunLimit`."""
        agents = [self._catalog.agents.get(name) for name in names]
        needed = sum(agent.limits.steps for agent in agents if agent is not None)
        left = most_steps(self._agent, self._run.request) - self._calls - lead_joins
        if needed > left:
            raise RunLimit(
                f"The sub-agents may make {needed} model calls, and the run has {left} left for them."
            )
        self._calls += needed

    def _hold_tree(self, cost_nano: int, shared: Shared) -> Events[None]:
        """Hold the most that the tree may cost. Raises `BudgetExceeded`, `AgentStopped`, or the run's stop reason."""
        self._attempt.handle.check()
        journal, spending = self._journal, self._deps.spending
        events: list[RunEvent] = []

        def write(first: WriteInTransaction, hold: WriteInTransaction) -> None:
            events.extend(journal.commit(first=first, last=hold))

        def before_retry() -> None:
            self._attempt.handle.check()
            events.extend(journal.commit_finished())

        most = spending.remaining_budget(self._run)
        estimate = TreeEstimate.of(self._run, journal.steps + 1, cost_nano, most)
        shared.tree = spending.reserve(estimate, write, before_retry).hold
        yield from events

    def _wait_for_approvals(self, waiting: Sequence[Branch]) -> Events[None]:
        """Leave the run waiting for the questions of all branches. Raises `WaitsForApproval`."""
        works, events = questions_of([branch.journal for branch in waiting])
        for name, data in events:
            self._journal.publish_after_commit(name, data)
        yield from self._journal.suspend(*works)
        asked = [branch.error.approvals for branch in waiting if isinstance(branch.error, WaitsForApproval)]
        raise WaitsForApproval(list(dict.fromkeys(approval for ids in asked for approval in ids)))
