"""`flask runs`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click
import orjson

from service.cli.agents import caller_of
from service.cli.common import (
    LAYOUT,
    Commands,
    RealNumber,
    WholeNumber,
    as_json,
    in_workspace,
    limit_option,
    print_json,
    print_rows,
    printable,
    services,
    without_log_lines,
    worker_lease,
)
from service.errors import Conflict, NotFound
from service.ids import new_id
from service.runs.events.event_stream import stream_key
from service.runs.forks import Wanted
from service.runs.result import shown
from service.runs.runner import MAX_LOSSES
from service.store import feedback as feedback_rows
from service.store import run_lists
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Row, Transaction
from service.store.run_lists import RunFilter
from service.store.visibility import UNRESTRICTED
from service.types import Event, RunEvent, RunStatus, now_ms, public_fields, usd

runs = Commands("runs", help="Runs: look at them, stop them, send them off again.")
_COLUMNS = "run_id status agent door attempt cost_usd created_at"
_MAX_PAUSE = 5.0  # seconds a replay waits at most between two events


@runs.command("list")
@click.option("--status", type=click.Choice([str(status) for status in RunStatus]))
@click.option("--agent", help="Only this agent's.")
@click.option("--session", help="Only this session's.")
@click.option("--schedule", help="Only this schedule's; not with --session.")
@limit_option
@as_json
def list_runs(limit: int, as_json: bool, **filters: str | None) -> None:
    """List runs, newest first."""
    if filters["session"] is not None and filters["schedule"] is not None:
        raise click.UsageError("Give --session or --schedule, not both.")
    wanted = RunFilter(filters["status"], filters["agent"], filters["session"], filters["schedule"])
    found = services().infra.db.query(
        lambda tx: run_lists.recent(tx, wanted, limit=limit, before=None, visible=UNRESTRICTED)
    )
    _print_runs(found, as_json)


@runs.command()
@limit_option
@as_json
def dead(limit: int, as_json: bool) -> None:
    """List dead letters: runs given up because their workers kept ending."""
    _print_runs(services().infra.db.query(lambda tx: run_lists.dead(tx, MAX_LOSSES, limit)), as_json)


@runs.command()
@click.argument("run_id")
@as_json
def show(run_id: str, as_json: bool) -> None:
    """Show one run with its steps and its webhook."""
    run = services().runs.queries.get(run_id)
    steps = services().infra.db.query(lambda tx: step_rows.listed(tx, run_id))
    details = {
        **shown(services().runs.queries.result(run)),
        **_line(asdict(run)),
        "losses": run.losses,
        "webhook": services().webhooks.of_run(run),
        "step_list": [_step(step) for step in steps if step["kind"] != "note"],
    }
    if as_json:
        return print_json(details)
    for name, value in details.items():
        if name not in ("step_list", "sources", "tools") and value not in (None, ""):
            text = value if isinstance(value, str | int) else orjson.dumps(value).decode()
            click.echo(f"{name:14} {printable(str(text), keep=LAYOUT)}")
    print_rows(details["step_list"], "step kind name attempt ms cost_usd", "No step is done.")


@runs.command()
@click.option("--agent", help="Only this agent's.")
@click.option("--score", type=click.IntRange(-1, 1), help="Only of this score.")
@limit_option
@as_json
def feedback(agent: str | None, score: int | None, limit: int, as_json: bool) -> None:
    """List users' feedback on their runs, newest runs first."""
    found = services().infra.db.query(
        lambda tx: feedback_rows.recent(tx, limit=limit, agent=agent, score=score)
    )
    lines = [public_fields(row, "run_id agent score updated_at comment") for row in found]
    print_rows(lines, "run_id agent score updated_at comment", "There is none.", as_json=as_json)


@runs.command()
@click.argument("run_id")
def cancel(run_id: str) -> None:
    """Cancel a run, on whichever worker it runs."""
    queries = services().runs.queries
    services().runs.cancellation.cancel(queries.get(run_id))
    run = queries.get(run_id)
    click.echo(
        f"{run_id} is {run.status}." if run.status.ended else f"{run_id} will be cancelled within seconds."
    )


@runs.command()
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--all-dead", is_flag=True, help="Every dead letter.")
def resume(run_ids: tuple[str, ...], all_dead: bool) -> None:
    """Queue failed runs again: they resume after their last journaled step."""
    if bool(run_ids) == all_dead:
        raise click.UsageError("Name runs, or say --all-dead.")
    found = services().infra.db.query(lambda tx: run_lists.dead(tx, MAX_LOSSES, 100_000)) if all_dead else []
    for run_id in run_ids or [row["id"] for row in found]:
        _requeue(run_id)
        click.echo(f"{run_id} is queued.")
    if all_dead and not found:
        click.echo("There are no dead letters.")


@runs.command()
@click.argument("run_id")
@click.option("--speed", type=RealNumber(min=0, min_open=True), help="1: as fast as it was. None: at once.")
@as_json
def replay(run_id: str, speed: float | None, as_json: bool) -> None:
    """Print a run's events again, as the client saw them; of a running one, those until now."""
    queries = services().runs.queries
    queries.get(run_id)
    steps = services().infra.db.query(lambda tx: step_rows.listed(tx, run_id))
    for event in queries.so_far(run_id):
        if speed is not None:
            time.sleep(_seconds_before(event, steps) / speed)
        if as_json:
            line = {"id": f"{run_id}:{event.seq}", "event": event.name, "data": shown(event.data)}
            click.echo(orjson.dumps(line).decode())
        else:
            _print_event(event)
        sys.stdout.flush()


@runs.command()
@click.argument("run_id")
@click.option("--from", "step", type=WholeNumber(min=1), required=True, help="First step that is made anew.")
@click.option("--prompt", type=click.File(encoding="utf-8"), help="In place of the agent's own.")
@click.option("--model", help="In place of the models of the agent's tiers.")
@click.option("--user", "username", help="Whose run the fork is, and whose spending. None: the first admin.")
@in_workspace
@as_json
def fork(run_id: str, username: str | None, workspace: str, as_json: bool, **options: Any) -> None:
    """Run again from a step: those before are kept, tools are answered from the record, nothing else is called.

    Its model calls are billed.
    """
    prompt = options["prompt"].read() if options["prompt"] is not None else None
    wanted = Wanted(options["step"], prompt, options["model"])
    with without_log_lines(), worker_lease() as leased:
        # A command is an admin's, whoever is to own the fork: it may read the run, and choose prompt and model.
        caller, parts = caller_of(leased, username, workspace)._replace(role="admin"), leased.runs
        request = parts.forks.request(caller, run_id, wanted)
        made = parts.start.queue(caller, request, None, new_id("req")).run
        parts.execution.take_up(made.id)
        run = parts.queries.wait(made.id)
        told = {**shown(run.result or {}), **parts.forks.shown(run, caller)}
    if as_json:
        print_json(told)
    else:
        _print_fork(told)
    sys.exit(0 if run.status is RunStatus.SUCCEEDED else 1)


def _print_fork(told: Mapping[str, Any]) -> None:
    click.echo(f"{told['run_id']} {told['status']}")
    difference = told["difference"]
    if difference is None:
        return click.echo(printable(told["output"], keep=LAYOUT))
    names = ("status", "model_calls", "tool_calls", "cost_usd")
    print_rows([{"from_step": name, **difference[name]} for name in names], "from_step before after", "")
    same = "The answers are the same." if difference["output_same"] else difference["output_diff"]
    click.echo(printable(same or told["output"], keep=LAYOUT))


def _requeue(run_id: str) -> None:
    """Queue a failed run, and delete its live stream: a follower would stop at the old end.

    The stream is deleted before the commit: after it, another process may have begun to fill it again.
    """
    now = now_ms()

    def work(tx: Transaction) -> None:
        run = rows.get(tx, run_id)
        if run is None:
            raise NotFound(f"There is no run {run_id}.")
        if not rows.requeue(tx, run_id, [RunStatus.FAILED], now):
            raise Conflict(f"{run_id} is {run.status}: only a failed run is sent off again.")
        services().infra.redis_store.call(lambda client: client.delete(stream_key(run_id)), default=0)

    services().infra.db.transact(work)
    services().runs.wakeup.ring([run_id])


def _seconds_before(event: RunEvent, steps: list[Any]) -> float:
    """Return the seconds to wait before an event: its step's duration, spread evenly over the step's events."""
    for step in steps:
        if step["first_seq"] <= event.seq <= step["last_seq"]:
            took = (step["finished_at"] - step["started_at"]) / 1000
            return min(_MAX_PAUSE, float(took / (step["last_seq"] - step["first_seq"] + 1)))
    return 0.0


def _print_event(event: RunEvent) -> None:
    """Print text deltas inline, every other event as a line of its own."""
    if event.name is Event.TEXT_DELTA:
        return click.echo(printable(event.data["text"], keep=LAYOUT), nl=False)
    data = {name: value for name, value in shown(event.data).items() if name not in ("output", "sources")}
    line = printable(f"[{event.seq}] {event.name} {orjson.dumps(data).decode()}")
    click.echo(click.style(f"\n{line}", dim=True))


def _print_runs(found: list[Row], as_json: bool) -> None:
    print_rows([_line(row) for row in found], _COLUMNS, "There are none.", as_json=as_json)


def _line(row: Row) -> dict[str, Any]:
    return {
        "run_id": row["id"],
        **public_fields(row, "status agent door attempt user_id created_at finished_at"),
        "cost_usd": usd(row["cost_nano"]),
        "error": row["error"]["code"] if row["error"] else None,
    }


def _step(step: Any) -> dict[str, Any]:
    took = {"ms": step["finished_at"] - step["started_at"], "cost_usd": usd(step["cost_nano"])}
    return {"step": step["n"], **public_fields(step, "kind name attempt"), **took}
