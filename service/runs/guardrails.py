"""Guardrails in force: those of an agent and of the workspace whose run it is, of each part the stricter."""

from __future__ import annotations

import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from service.agents.definitions import AgentDefinition
from service.audit.record import Action, Refusals
from service.errors import DatabaseUnavailable, GuardrailRefused, guardrail_refused
from service.guardrails.effort import Effort
from service.guardrails.filter import Refused
from service.guardrails.in_force import NOTHING, InForce
from service.guardrails.keyed_vault import KeyedVault
from service.guardrails.policy import OFF, Rail, SideSpec, parse_rails, stricter
from service.guardrails.whole_texts import WholeTexts, filtered_messages
from service.observe.observer import Observer
from service.runs.attempt import Attempt
from service.runs.run_rails import RunRails
from service.store import workspaces
from service.store.database import Database
from service.text import exact_json
from service.types import Run, RunRequest

SECONDS = 2.0  # that a process uses the guardrails of a workspace for, until it reads them again
MOST_WORKSPACES, MOST_RAILS = 4_096, 1_024  # that a process remembers


@dataclass(frozen=True)
class WorkspaceRails:
    """Guardrails of a workspace; `digest` is empty where it has none."""

    rail: Rail
    digest: str = ""

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> WorkspaceRails:
        if not stored:
            return _NONE
        encoded = orjson.dumps(stored, option=orjson.OPT_SORT_KEYS)
        return cls(parse_rails(stored), sha256(encoded).hexdigest()[:32])


_NONE = WorkspaceRails(OFF)


class Guardrails:
    """Guardrails of all runs; one per process.

    A change of a workspace's is in force everywhere after `SECONDS`. While the database is away, nobody can change
    them, and those read last stay in force. `secret` makes the placeholders of one service.
    """

    def __init__(self, db: Database, secret: str, refusals: Refusals, observer: Observer) -> None:
        self._db = db
        self._key = hmac.digest(secret.encode(), b"slipway guardrails", "sha256")
        self._refusals = refusals
        self._observer = observer
        self._lock = threading.Lock()
        self._workspaces: OrderedDict[str, tuple[float, WorkspaceRails]] = OrderedDict()
        self._in_force: OrderedDict[tuple[str, str, str], InForce] = OrderedDict()

    def of_workspace(self, workspace_id: str) -> WorkspaceRails:
        """Return the guardrails of a workspace. Raises `DatabaseUnavailable` where they were never read."""
        until, known = self._workspaces.get(workspace_id, (0.0, None))
        now = time.monotonic()
        if known is not None and now < until:
            return known
        try:
            stored = self._db.query(lambda tx: workspaces.guardrails(tx, workspace_id))
        except DatabaseUnavailable:
            if known is None:
                raise
            return known
        found = WorkspaceRails.of(stored)
        with self._lock:
            self._workspaces[workspace_id] = (now + SECONDS, found)
            self._workspaces.move_to_end(workspace_id)
            if len(self._workspaces) > MOST_WORKSPACES:
                self._workspaces.popitem(last=False)
        return found

    def forget(self) -> None:
        """Read the guardrails of workspaces again."""
        with self._lock:
            self._workspaces.clear()

    def in_force(self, run: Run, agent: AgentDefinition) -> InForce:
        """Return what is in force for a run of an agent."""
        workspace = self.of_workspace(run.workspace_id)
        if not workspace.digest and not agent.guardrails.acts:
            return NOTHING
        if run.request.fork is not None:  # whose agent has guardrails of two versions
            return InForce.of(stricter(agent.guardrails, workspace.rail))
        key = (agent.id, agent.version, workspace.digest)
        found = self._in_force.get(key)
        if found is None:
            found = InForce.of(stricter(agent.guardrails, workspace.rail))
            with self._lock:
                self._in_force[key] = found
                if len(self._in_force) > MOST_RAILS:
                    self._in_force.popitem(last=False)
        return found

    def admit(self, run: Run, agent: AgentDefinition) -> None:
        """Check what was asked, before anything is looked up or spent. Raises `GuardrailRefused`, and records that."""
        try:
            _check(run.request, self.in_force(run, agent))
        except GuardrailRefused as error:
            self.note_refusal(run, error)
            raise

    def count(self, acted: Sequence[Mapping[str, Any]]) -> None:
        """Count what guardrails did to a call that is no step of its run yet."""
        for one in acted:
            self._observer.guardrail(one["where"], one["kind"], one["action"])

    def note_refusal(self, run: Run, error: GuardrailRefused) -> None:
        """Count and record the refusal of a run that has not begun."""
        self._observer.guardrail(str(error.extra["where"]), str(error.extra["kind"]), "refuse")
        acted = [{**error.extra, "action": "refuse"}]
        self._refusals.record(
            Action.GUARDRAIL, f"agent:{run.agent}", workspace_id=run.workspace_id, acted=acted
        )

    def begin(self, attempt: Attempt, agent: AgentDefinition) -> None:
        """Put an attempt under its guardrails. Raises `GuardrailRefused` for what a task has asked."""
        run = attempt.run
        in_force = self.in_force(run, agent)
        # Kept steps of a fork have the placeholders of the run that it is of.
        scope = run.request.session_id or (run.request.fork or {}).get("scope") or run.id
        vault = KeyedVault(hmac.digest(self._key, scope.encode(), "sha256"))
        attempt.guard(RunRails(run, in_force, vault, attempt.journal, self._observer))
        if run.mode == "queue" or run.resumed:
            try:
                _check(run.request, in_force)
            except GuardrailRefused as error:
                raise attempt.rails.refused(error) from None


_COUNTED = SideSpec()  # its texts are counted, and not read


def _check(request: RunRequest, in_force: InForce) -> None:
    """Raise `GuardrailRefused` for what was asked; for more of it than guardrails read, whatever they do."""
    if not in_force.acts_in:
        return
    effort, reads = Effort(), in_force.refuses_in
    strict = WholeTexts(in_force.rail.input if reads else _COUNTED, None, effort)
    mild = WholeTexts(in_force.mild_in if reads else _COUNTED, None, effort)
    try:
        filtered_messages(request.messages, strict, mild, mild)
        for text in filter(None, (request.context, request.instructions)):
            strict.text(text)
        if request.context and reads:
            strict.json(exact_json.loads(request.context.encode()))
    except Refused as refused:
        raise guardrail_refused("input", refused.kind) from None
