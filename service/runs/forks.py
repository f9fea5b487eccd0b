"""Forks: a run again from one of its steps, with another prompt or model if an operator says so.

The steps before it are copied, and replayed as those of an interrupted run are; the model is asked for the others, and
their tool calls are answered from the record (`service.runs.recorded_calls`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.agents.elsewhere import REMOTE
from service.audit.record import Action, record
from service.auth.permissions import check_models
from service.errors import Forbidden, NotForkable, NotFound, fault
from service.files import references
from service.runs.forked import NO_TOOLS
from service.sessions import NO_SESSION
from service.store import forks as rows
from service.store import messages, runs
from service.store.database import Database, Row, Transaction
from service.store.visibility import UNRESTRICTED, visible_to
from service.types import Caller, Run, RunRequest, RunStatus, usd
from service.usage.prices import PriceTable

OVERRIDERS = ("operator", "admin")
MAX_DIFF = 20_000  # characters of an answer, and …
MAX_DIFF_LINES = 200  # … its lines, beyond which no difference is worked out


class Wanted(NamedTuple):
    """Fork that is asked for: the first step that is made anew; None: the agent's own prompt, or models."""

    from_step: int
    prompt: str | None = None
    model: str | None = None


class _Source(NamedTuple):
    run: Run
    steps: list[int]
    remote: bool
    session: bool  # the session that it continues is there
    session_files: bool


@dataclass(frozen=True, slots=True)
class Forks:
    """Forks of runs. One per process."""

    db: Database
    catalog: AgentCatalog
    prices: PriceTable

    def request(self, caller: Caller, run_id: str, wanted: Wanted) -> RunRequest:
        """Build the request of a fork. Raises `NotFound`, `Forbidden`, `NotForkable` and `Invalid`."""
        source = self.db.query(partial(_read, run_id=run_id, caller=caller))
        run, asked = source.run, source.run.request
        self._check(source, caller)
        self._check_overrides(caller, run, wanted)
        if wanted.from_step not in (steps := _forkable(source)):
            raise fault(
                "/from_step", f"The run has no such step: its own are {', '.join(map(str, steps)) or 'none'}."
            )
        own = caller.user_id == run.user_id
        return replace(
            asked,
            session_id=None,
            parent_message_id=None,
            cache="bypass",
            on_disconnect="continue",
            callback_url=None,
            priority="normal",
            on_conflict=None,
            end_user=asked.end_user if own else None,
            schedule_id=None,
            asked_as=None,
            door=rows.DOOR,
            tool_scopes=None,
            fork=_about(run, wanted, caller),
        )

    def shown(self, run: Run, caller: Caller | None) -> dict[str, Any]:
        """Return what the API shows of a fork: of which run it is, and once both have ended, how they differ.

        The difference is null where the caller may not see that run, or it is gone.
        """
        fork = run.request.fork
        if fork is None:
            return {"forked_from": None, "difference": None}
        about = {"run_id": fork["run_id"], "step": fork["step"], "model": fork.get("model")}
        about["own_prompt"] = "prompt" in fork
        return {"forked_from": about, "difference": self._difference(run, fork, caller)}

    def _check(self, source: _Source, caller: Caller) -> None:
        """Raise `NotForkable` for a run that has not ended, asked others than models, or of which a part is gone."""
        run = source.run
        if run.workspace_id != caller.workspace_id:
            raise NotForkable("A run is forked in its own workspace.")
        if not run.status.ended:
            raise NotForkable(f"The run is {run.status}: it can be forked once it has ended.")
        agent = self.catalog.find(run.agent, run.agent_version)
        if agent is None:
            raise NotFound(f"There is no agent named {run.agent}.")
        if agent.is_model or run.request.relayed:
            raise NotForkable("A model was asked as it is: there is no agent to run again.")
        if source.remote or self._asks_elsewhere(agent):
            raise NotForkable("A remote agent answered: what it does is not in the record.")
        if not source.session:
            raise NotForkable(NO_SESSION)
        if run.user_id != caller.user_id and (source.session_files or references(run.request.messages)):
            raise NotForkable("A run with images or documents is forked by its own user.")

    def _asks_elsewhere(self, agent: AgentDefinition) -> bool:
        agents = [agent, *filter(None, map(self.catalog.agents.get, agent.options.sub_agents))]
        return any(one.pattern == REMOTE for one in agents)

    def _check_overrides(self, caller: Caller, run: Run, wanted: Wanted) -> None:
        if (wanted.prompt, wanted.model) != (None, None) and caller.role not in OVERRIDERS:
            raise Forbidden("Another prompt or model needs the role operator.")
        if wanted.model is not None:
            if self.prices.provider(wanted.model) is None:
                raise fault("/model", f"There is no model named {wanted.model}.")
            check_models(caller, run.agent, [wanted.model])

    def _difference(self, run: Run, fork: Mapping[str, Any], caller: Caller | None) -> dict[str, Any] | None:
        visible = UNRESTRICTED if caller is None else visible_to(caller)

        def read(tx: Transaction) -> tuple[Run | None, list[Row], list[Row]]:
            source, first = runs.get(tx, fork["run_id"], visible), fork["step"]
            made = [row for row in rows.from_step(tx, run.id, 1) if row["attempt"] != rows.KEPT]
            return source, rows.from_step(tx, fork["run_id"], first), made

        if not run.status.ended:
            return None
        source, before, after = self.db.query(read)
        return None if source is None else _compared(source, run, before, after)


def keep(tx: Transaction, run: Run) -> None:
    """Store the kept steps of a new fork, and that it is one. Raises `NotForkable` for a run that is gone."""
    fork = run.request.fork
    if fork is None:
        return
    if runs.get(tx, fork["run_id"]) is None:
        raise NotForkable("The run is gone.")
    rows.keep_steps(tx, run, fork["run_id"], fork["step"])
    changed = [name for name in ("prompt", "model") if name in fork]
    record(tx, Action.RUN_FORKED, f"run:{run.id}", of=fork["run_id"], step=fork["step"], changed=changed)


def without_tools(request: RunRequest, tool_scopes: tuple[str, ...]) -> RunRequest:
    """Return a fork's request with the scopes of its caller about tools aside, see `NO_TOOLS`."""
    assert request.fork is not None
    return replace(request, tool_scopes=NO_TOOLS, fork={**request.fork, "tool_scopes": list(tool_scopes)})


def _read(tx: Transaction, run_id: str, caller: Caller) -> _Source:
    run = runs.get(tx, run_id, visible_to(caller))
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    session_id, turn = _turn(run)
    there = session_id is None or messages.has_turn(tx, session_id, turn)
    has_files = session_id is not None and rows.session_has_files(tx, session_id)
    return _Source(run, rows.numbers(tx, run_id), rows.has_remote_step(tx, run_id), there, has_files)


def _turn(run: Run) -> tuple[str | None, str]:
    """Return the session that a run continues, and the run whose turn it was: of a fork, the forked one."""
    fork = run.request.fork or {}
    return run.request.session_id or fork.get("session_id"), fork.get("turn", run.id)


def _about(run: Run, wanted: Wanted, caller: Caller) -> dict[str, Any]:
    """Return what the fork's request says of the forked run."""
    session_id, turn = _turn(run)
    owner = (run.request.fork or {}).get("user_id") or run.user_id
    about = {
        "run_id": run.id,
        "step": wanted.from_step,
        "version": run.agent_version,
        "prompt": wanted.prompt,
        "model": wanted.model,
        "user_id": None if owner == caller.user_id else owner,
        "session_id": session_id,
        "turn": None if session_id is None else turn,
        "scope": run.request.session_id or (run.request.fork or {}).get("scope") or run.id,
    }
    return {name: value for name, value in about.items() if value is not None}


def _forkable(source: _Source) -> list[int]:
    """Return the numbers of the steps from which a run can be forked: of one without an answer also the next."""
    following = source.steps[-1] + 1 if source.steps else 1
    return source.steps if source.run.status is RunStatus.SUCCEEDED else [*source.steps, following]


def _compared(source: Run, run: Run, before: list[Row], after: list[Row]) -> dict[str, Any]:
    old, new = ((one.result or {}).get("output") or "" for one in (source, run))
    costs = sum(row["cost_nano"] for row in before), run.cost_nano
    return {
        "status": _pair(source.status, run.status),
        "output_same": old == new,
        "output_diff": _diff(old, new),
        "model_calls": _pair(_models(before), _models(after)),
        "tool_calls": _pair(_tools(before), _tools(after)),
        "cost_usd": _pair(*map(usd, costs)),
    }


def _pair(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after}


def _models(steps: list[Row]) -> int:
    return sum(row["kind"] == "model" for row in steps)


def _tools(steps: list[Row]) -> int:
    return sum(len(row["reply"].get("results") or ()) for row in steps if row["kind"] == "tools")


def _diff(old: str, new: str) -> str | None:
    """Return a unified diff of two answers; None of long ones."""
    lines = old.splitlines(), new.splitlines()
    if max(len(old), len(new)) > MAX_DIFF or max(map(len, lines)) > MAX_DIFF_LINES:
        return None
    return "\n".join(difflib.unified_diff(*lines, "before", "after", lineterm=""))
