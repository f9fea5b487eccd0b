"""Counts of tokens, by the model's own counter: of a client's body, and of what an agent would send."""

from __future__ import annotations

import time
from dataclasses import dataclass

from service.agents.pattern import Prompt
from service.errors import fault
from service.files import put_back, to_leave_out
from service.history import alternating
from service.llm.build import ModelClients
from service.llm.client import ModelCall, ModelRequest
from service.llm.relay import RelayedRequest
from service.runs.billing import COUNT_BYTES, COUNT_SECONDS
from service.runs.client_tools import offered
from service.runs.guardrails import Guardrails
from service.runs.new_run import NewRuns
from service.runs.relay_guard import checked
from service.runs.turn import system_of, with_context
from service.types import Caller, RunRequest
from service.usage.reservation import Spending

WITHOUT_TOOLS = "single"  # pattern whose calls offer none of the agent's own


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts tokens, which is free. One per process. Raises `AgentStopped` and the errors of the model."""

    new_runs: NewRuns
    model: ModelClients
    spending: Spending
    guardrails: Guardrails

    def of_body(self, caller: Caller, asked: RelayedRequest) -> int:
        """Count what a model would be sent of a body. Raises `GuardrailRefused`."""
        asked = checked(asked, self.guardrails.of_workspace(caller.workspace_id).rail)
        self.spending.check_running(asked.model)
        return self.model.relay.count_tokens(asked, _call(len(asked.body)))

    def of_run(self, caller: Caller, request: RunRequest) -> int:
        """Count what the first model call of a run would send: the agent's prompt and tools, and the conversation.

        Raises `Invalid` for an agent that runs elsewhere, and as `NewRuns.make` does.
        """
        run = self.new_runs.make(caller, request, "wait", "")
        agent = self.new_runs.agent_of(run)
        if agent.pattern == "remote":
            raise fault("/model", "is an agent that runs elsewhere: its tokens cannot be counted here")
        self.spending.check_running(agent.id)
        route = agent.model_router.route(request.tier, request.question, len(agent.tools), agent.bounds)
        turns = alternating(with_context(run.request, instructed=not agent.is_model))
        files = (run.request.files or {}).values()
        messages = put_back(turns, {file.digest: file.data for file in files}, to_leave_out(turns))
        prompt = Prompt(system_of(agent, run.request), messages, tools=agent.pattern != WITHOUT_TOOLS)
        offer = offered(run.request, prompt, [tool.for_model() for tool in agent.tools.values()])
        counted = ModelRequest(route.models[0], messages, 1, prompt.system, **offer._asdict())
        return self.model.calls.count_tokens(counted, _call(sum(len(file.data) for file in files)))


def _call(size: int) -> ModelCall:
    return ModelCall(time.monotonic() + COUNT_SECONDS + size / COUNT_BYTES)
