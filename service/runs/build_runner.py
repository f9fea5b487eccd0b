"""Runner of a process, with its dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.agents.patterns import PATTERNS
from service.files import MAX_BYTES as MAX_FILE_BYTES
from service.infra.backends import Infra
from service.remote.client import RemoteClient, RemoteHosts
from service.runs.approval_requests import ApprovalRequests
from service.runs.batch.steps import BatchSteps
from service.runs.budget_waits import BudgetWaits
from service.runs.bytes_in_flight import BytesInFlight
from service.runs.file_content import ClientWithFiles
from service.runs.gateway_watch import GatewayWatch
from service.runs.guardrails import Guardrails
from service.runs.relay_step import RelayDependencies
from service.runs.remote_questions import RemoteQuestions
from service.runs.remote_step import RemoteDependencies
from service.runs.run_documents import RunDocuments
from service.runs.runner import Runner
from service.runs.steps import StepDependencies
from service.runs.tool_execution import ToolExecution

if TYPE_CHECKING:
    from config.base import Settings
    from service.runs.build import Domains


def build_runner(settings: Settings, infra: Infra, domains: Domains, batch_steps: BatchSteps) -> Runner:
    """Build the runner, and its parts that others share with it."""
    usage, observer = domains.usage, infra.observer
    waits = BudgetWaits(infra.db, usage.budgets, domains.webhooks, settings.cap_wait_seconds)
    secret = settings.secret_key.get_secret_value()
    guardrails = Guardrails(infra.db, secret, domains.refusals, observer)
    watch = GatewayWatch(domains.run_tokens)
    requests = ApprovalRequests(domains.webhooks, settings.approval_seconds, observer.escalated)
    tools = ToolExecution(infra.db, domains.tools, usage.rate_limits.tool, requests)
    remote = RemoteDependencies(
        db=infra.db,
        client=RemoteClient(
            RemoteHosts.of(settings.remote_hosts, settings.remote_credentials.get_secret_value())
        ),
        spending=usage.spending,
        tokens=domains.run_tokens,
        questions=RemoteQuestions(infra.db, requests),
        base_url=settings.gateway_url or f"http://127.0.0.1:{settings.port}",
    )
    room = BytesInFlight(2 * MAX_FILE_BYTES)
    client = ClientWithFiles(domains.model.calls, infra.db, room)
    documents = RunDocuments(domains.knowledge, domains.embeddings)
    steps = StepDependencies(
        client, usage.prices, tools, usage.spending, batch_steps, observer, remote, documents
    )
    relay = RelayDependencies(domains.model.relay, usage.prices, usage.spending, observer, watch)
    return Runner(
        domains.agents,
        PATTERNS,
        steps,
        observer,
        domains.sessions,
        domains.webhooks,
        waits,
        relay,
        guardrails,
    )
