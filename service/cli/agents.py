"""`flask agents`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import click

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.agents.eval_spec import EvalCase
from service.auth.users import User
from service.cli.common import (
    Commands,
    as_json,
    in_workspace,
    paginate,
    print_json,
    print_rows,
    services,
    user_named,
    without_log_lines,
    worker_lease,
)
from service.errors import NotFound
from service.evals.injection import InjectingRunner
from service.evals.judge import Judge
from service.evals.outcome import Outcome
from service.evals.trial import Trial
from service.text.suggest import unknown
from service.types import Caller, usd
from service.wiring import Services

agents = Commands("agents", help="The agents that can be run, and whether they are any good.")


@agents.command("list")
@as_json
def list_agents(as_json: bool) -> None:
    """List the agents that can be run, why which of them are stopped, and what comes from packages."""
    catalog = services().agents
    reasons = {stop["agent"]: stop["reason"] for stop in services().runs.stops.every()}
    shown = [
        {
            **agent.public(),
            "skills": list(agent.skills),
            "origin": catalog.origin(agent.id),
            "stopped": reasons.get(agent.id),
        }
        for agent in catalog.agents.values()
    ]
    columns = "id pattern version tools description"
    columns += " origin" if any(row["origin"] for row in shown) else ""
    columns += " stopped" if reasons else ""
    print_rows(shown, columns, "There are no agents.", as_json=as_json)
    tools = [{"tool": name, "origin": origin} for name, origin in catalog.packaged.tool_origins.items()]
    if tools and not as_json:
        click.echo()
        print_rows(tools, "tool origin", "")


@agents.command()
@click.argument("name")
@click.option("--reason", required=True, help="For other admins, who see it in lists.")
def stop(name: str, reason: str) -> None:
    """Stop an agent: no call of it begins any more, its runs wait, and new ones are refused."""
    stops = services().runs.stops
    try:
        state = services().infra.db.transact(lambda tx: stops.stop(tx, name, reason))
    except NotFound:
        folder = services().settings.agents_dir
        raise click.ClickException(
            f"There is no agent {name} in {folder}, and no run of one. AGENTS_DIR must be that of the service."
        ) from None
    stopped = (
        f"Stopped {name}" if state["reason"] == reason else f"{name} is stopped already: {state['reason']}"
    )
    click.echo(f"{stopped.rstrip('.')}. `flask agents release {name}` lets it go on.")


@agents.command()
@click.argument("name")
def release(name: str) -> None:
    """Release a stopped agent: its runs go on."""
    stops = services().runs.stops
    was_stopped = name in {stop["agent"] for stop in stops.every()}
    stops.release(name)
    click.echo(f"Released {name}." if was_stopped else f"{name} is not stopped.")


@agents.command()
@click.argument("name", required=False)
@as_json
def check(name: str | None, as_json: bool) -> None:
    """List faults of the agents' folders, or of one, with file, line and field; exit code 1 if there are any.

    An agent with an error is not served; a warning names a part without effect, or with an unintended one.
    """
    catalog = services().agents
    found = [fault for fault in (*catalog.faults, *catalog.warnings) if name in (None, fault.agent)]
    if name is not None and not found:
        named(services(), name)
    if as_json:
        print_json([fault._asdict() for fault in found])
    else:
        for fault in found:
            click.echo(str(fault))
        click.echo(_counted(catalog) if name is None else f"{name} {_verdict(catalog, name)}.")
    sys.exit(1 if found else 0)


def _verdict(catalog: AgentCatalog, name: str) -> str:
    if any(fault.agent == name for fault in catalog.faults):
        return "cannot be run"
    skills = catalog.agents[name].skills if name in catalog.agents else ()
    return f"can be run; its skills: {', '.join(skills)}" if skills else "can be run"


def _counted(catalog: AgentCatalog) -> str:
    broken, warnings = len({fault.agent for fault in catalog.faults}), len(catalog.warnings)
    more = f"; {warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else ""
    return f"{len(catalog.agents)} can be run, {broken} cannot{more}."


@agents.command("eval")
@click.argument("names", metavar="[AGENT]...", nargs=-1)
@click.option("--user", "username", help="Whose run it is, and whose spending. None: the first admin.")
@in_workspace
@as_json
def evaluate(names: tuple[str, ...], username: str | None, workspace: str, as_json: bool) -> None:
    """Ask agents, or all of them, the questions of their evals.yaml; exit code 1 when an answer is not as expected.

    The runs are real: their calls are billed, and `flask runs list` shows them. With the
    offline model, questions that only a real one can answer are named and not asked.
    """
    tools = InjectingRunner()
    with without_log_lines(), worker_lease(tools) as leased:
        agents = [named(leased, name) for name in names] or list(leased.agents.agents.values())
        for agent in agents:
            if names and not agent.evals:
                raise click.ClickException(f"{agent.id} has no evals.yaml.")
        asking = _Asking(leased, tools, caller_of(leased, username, workspace))
        cases = [(agent, case) for agent in agents for case in agent.evals]
        results = [_judge(asking, agent, case, quiet=as_json) for agent, case in cases]
    if as_json:
        print_json(results)
    else:
        click.echo(_summary(results))
    sys.exit(1 if any(result["missing"] for result in results) else 0)


def caller_of(leased: Services, username: str | None, workspace: str) -> Caller:
    """Return the user of the options `--user` and `--workspace` as a caller; by default the first admin."""
    user = user_named(username, workspace) if username else _first_admin(leased, workspace)
    return Caller(user.id, user.username, user.role, workspace_id=user.workspace_id)


def named(leased: Services, name: str) -> AgentDefinition:
    """Find an agent, or end the command with an error."""
    catalog = leased.agents
    agent = catalog.agents.get(name)
    if agent is None:
        if any(fault.agent == name for fault in catalog.faults):
            raise click.ClickException(f"{name} cannot be run: `flask agents check {name}` says why.")
        raise click.ClickException(f"There is no agent {name}{unknown(name, catalog.agents)}")
    return agent


def _summary(results: list[dict[str, Any]]) -> str:
    answered = [result for result in results if not result["skipped"]]
    passed = sum(not result["missing"] for result in answered)
    skipped = len(results) - len(answered)
    more = f"; {skipped} not asked: they need a real model (ANTHROPIC_API_KEY)" if skipped else ""
    return f"{passed} of {len(answered)} passed{more}."


def _first_admin(leased: Services, workspace: str) -> User:
    workspace_id = leased.auth.workspaces.named(workspace).id
    page = partial(leased.auth.users.page, workspace_id=workspace_id)
    users: Iterator[User] = paginate(page, attrgetter("id"))
    for user in users:
        if user.role == "admin" and not user.disabled:
            return user
    raise click.ClickException("There is no admin yet: add one with `flask users add NAME --role admin`.")


def _judge(asking: _Asking, agent: AgentDefinition, case: EvalCase, *, quiet: bool) -> dict[str, Any]:
    """Run one case, and print its verdict at once."""
    about = {"agent": agent.id, "input": case.input}
    if case.needs_real_model and asking.leased.settings.offline:
        if not quiet:
            click.echo(f"skip  {agent.id}: {case.input}")
        return {**about, "skipped": True, "missing": [], "output": ""}
    outcome = asking.ask(agent, case)
    if not quiet:
        verdict = click.style("FAIL", fg="red") if outcome.missing else click.style("pass", fg="green")
        click.echo(f"{verdict}  {agent.id}: {case.input}")
        for line in outcome.missing:
            click.echo(f"      {line}")
    spent = {"run_id": outcome.run_ids[-1], "cost_usd": usd(outcome.cost_nano)} if outcome.run_ids else {}
    return {**about, "skipped": False, "missing": list(outcome.missing), "output": outcome.output, **spent}


class _Asking(NamedTuple):
    """Services that ask a user's cases, one after the other."""

    leased: Services
    tools: InjectingRunner
    caller: Caller

    def ask(self, agent: AgentDefinition, case: EvalCase) -> Outcome:
        self.tools.inject(self.caller.user_id, case.injected_results)
        judge = Judge(self.leased.runs.start, self.leased.settings.model_medium)
        return Trial(self.leased, self.caller, agent, case, judge).run()
