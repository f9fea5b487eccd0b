"""New runs: made from a request, opened by one transaction that also claims the idempotency key and the session."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.errors import Invalid, NotFound, SessionBusy
from service.ids import new_id
from service.observe import tracing
from service.runs import forks
from service.runs.client_tools import Continuations
from service.runs.client_tools import check as check_client_tools
from service.runs.conflicts import Conflicts
from service.runs.file_content import check as check_files
from service.runs.file_content import store as store_files
from service.runs.forks import without_tools
from service.runs.idempotency import Key
from service.runs.journal import Opening
from service.runs.queue_bounds import QueueBounds
from service.sessions import Sessions
from service.store import runs as rows
from service.store import task_line
from service.store.database import Database, Transaction
from service.store.transaction import WriteInTransaction
from service.store.visibility import TOOLS, of_kind
from service.types import DOOR_OF_MODE, Caller, Mode, Run, RunRequest, mode_of, now_ms
from service.usage.prices import PriceTable

MODEL_TOKENS = 4_096  # of an answer of a model that is asked as it is, if the request does not say
KEY_SECONDS = 1.0  # seconds a rate-limited request looks for the run its key may belong to


@dataclass(frozen=True, slots=True)
class NewRuns:
    """Makes and opens runs. One per process; runs executed at once are assigned to `worker_id`."""

    db: Database
    catalog: AgentCatalog
    sessions: Sessions
    conflicts: Conflicts
    continuations: Continuations
    queue: QueueBounds
    prices: PriceTable
    worker_id: str
    file_bytes: int  # most that are stored for one user

    def agent(self, name: str) -> AgentDefinition:
        """Find an agent, or a model that is asked as it is. Raises `NotFound`."""
        agent = self.catalog.agents.get(name) or self.catalog.model(name)
        if agent is None:
            raise NotFound(f"There is no agent named {name}.")
        return agent

    def agent_of(self, run: Run) -> AgentDefinition:
        """Find a run's agent in the version that the run began with. Raises `NotFound`."""
        return self.catalog.find(run.agent, run.agent_version) or self.agent(run.agent)

    def make(self, caller: Caller, request: RunRequest, mode: Mode, request_id: str) -> Run:
        """Build a run from a request. Raises `NotFound`, and `Invalid` for more steps than the agent allows."""
        door = request.door or DOOR_OF_MODE[mode]
        if mode_of(door) != mode:  # a worker that recovers the run knows its door only
            raise ValueError(f"The door {door} is not one of mode {mode}.")
        agent = self._agent_for(request, request.session_id or caller.user_id)
        if caller.scopes and request.session_id is not None:  # 404 for another agent's, without its name
            self.sessions.get(caller, request.session_id, own=True)
        if request.max_steps is not None and request.max_steps > agent.limits.steps:
            detail = f"`max_steps` of the agent {agent.id} is at most {agent.limits.steps}."
            raise Invalid(detail, errors=[{"pointer": "/max_steps", "detail": detail}])
        if request.max_tokens is None and agent.is_model:
            request = replace(request, max_tokens=MODEL_TOKENS)
        if request.max_tokens is not None and request.max_tokens > agent.max_tokens:
            request = replace(request, max_tokens=agent.max_tokens)
        if request.on_cap is None and agent.on_cap == "pause":
            request = replace(request, on_cap="pause")
        check_files(agent, request.messages, self.prices)
        if request.client_tools:
            check_client_tools(agent, request)
            request = replace(
                request, messages=self.continuations.restored(caller, agent.id, request.messages)
            )
        request = _traced(_scoped(request, of_kind(caller.scopes, TOOLS)))
        return Run(
            id=new_id("run"),
            workspace_id=caller.workspace_id,
            user_id=caller.user_id,
            key_id=caller.key_id,
            agent=agent.id,
            agent_version=agent.version,
            door=door,
            request=request,
            request_id=request_id,
            attempt=1,
            started_at=now_ms(),
        )

    def trial_of(self, run: Run) -> str:
        """Return the canary in which a run takes part, on either side; else ""."""
        return self.catalog.trial_of(run.agent, run.request.session_id or run.user_id)

    def _agent_for(self, request: RunRequest, unit: str) -> AgentDefinition:
        """Return the agent as served to a session, else user; for a fork as of the forked run. Raises `NotFound`."""
        agent = self.agent(request.agent)
        if request.fork is None:
            return self.catalog.served_to(agent.id, unit) or agent
        return self.catalog.find(agent.id, request.fork["version"]) or agent

    def opening(self, run: Run, key: Key | None) -> Opening:
        """Return the write that opens a run; the write raises `AlreadyStarted` if the key belongs to another."""
        queued = run.mode == "queue"
        worker, wake_at = (None, run.created_at) if queued else (self.worker_id, None)

        def write(tx: Transaction) -> bool:
            if key is not None:
                key.start(tx, run.id)
            new = rows.insert(tx, run, worker_id=worker, wake_at=wake_at)
            store_files(tx, run, self.file_bytes)
            forks.keep(tx, run)
            waits = (
                queued and self.conflicts.policy_of(run.request) != "reject"
            )  # the task queue is its queue
            if not self.sessions.begin(tx, run):
                if not waits:
                    raise SessionBusy(retry_after=1)
                task_line.step_aside(tx, run.id)
            return new

        return write

    def open(self, run: Run, key: Key | None, *writes: WriteInTransaction) -> None:
        """Open a run that is not executed here; `writes` join the transaction. Raises as `opening` does."""
        opening = self.opening(run, key)

        def write(tx: Transaction) -> None:
            opening(tx)
            for write in writes:
                write(tx)

        self.db.transact(write)

    def started_with(self, key: Key | None, seconds: float = KEY_SECONDS) -> str | None:
        """Look for the run that a key belongs to, for so many seconds at most.

        Of concurrent requests with one key, as many as the user's limit on concurrent runs are counted before the first
        has written its run.
        """
        end = time.monotonic() + seconds
        while key is not None:
            if (run_id := self.db.query(key.started)) is not None:
                return run_id
            if key.automatic or time.monotonic() > end:  # a load balancer never sends one key concurrently
                return None
            time.sleep(0.05)
        return None


def _scoped(request: RunRequest, tool_scopes: tuple[str, ...]) -> RunRequest:
    """Return a request with the scopes of its caller about tools, if there are any."""
    if request.fork is not None:
        return without_tools(request, tool_scopes)
    return replace(request, tool_scopes=tool_scopes) if tool_scopes else request


def _traced(request: RunRequest) -> RunRequest:
    """Return a request with its place in a trace; that of a forked run is another's."""
    trace = tracing.traceparent() or None
    return request if trace == request.trace else replace(request, trace=trace)
