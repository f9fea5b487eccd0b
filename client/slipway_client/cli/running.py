"""`slipway runs`: list, show, cancel and fork."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from slipway_client.cli.console import as_json, card, line, table
from slipway_client.cli.show import summary
from slipway_client.client import Slipway
from slipway_client.errors import BadArgument
from slipway_client.models import Run


def list_runs(client: Slipway, options: argparse.Namespace) -> int:
    filters = {"status": options.status, "agent": options.agent, "session_id": options.session}
    found = list(islice(client.runs.list(**filters), options.limit))
    if options.json:
        as_json(found)
        return 0
    rows = [
        (run.run_id, run.created_at, run.agent, run.status, run.usage.cost_usd, (run.input or "")[:60])
        for run in found
    ]
    table(rows, "ID", "CREATED", "AGENT", "STATUS", "USD", "INPUT", empty="No runs.")
    return 0


def show_run(client: Slipway, options: argparse.Namespace) -> int:
    run = client.runs.get(options.id)
    if options.json:
        as_json(run)
        return 0
    rows = [
        ("status", run.status),
        ("agent", f"{run.agent} ({run.agent_version})"),
        ("model", run.model),
        ("created", run.created_at),
        ("finished", run.finished_at),
        ("tokens", f"{run.usage.input_tokens} in, {run.usage.output_tokens} out"),
        ("cache", run.cache),
        ("question", run.input),
    ]
    card(run.run_id, rows)
    steps = [
        (step.step, step.kind, step.name, step.started_at, step.cost_usd) for step in run.step_list or ()
    ]
    table(steps, "STEP", "KIND", "NAME", "STARTED", "USD", empty="No steps yet.")
    if run.output:
        line(run.output)
    summary(run)
    return 0


def cancel_run(client: Slipway, options: argparse.Namespace) -> int:
    cancelled = client.runs.cancel(options.id)
    if options.json:
        as_json(cancelled)
    else:
        line(f"{cancelled.run_id}: {cancelled.status}")
    return 0


def fork_run(client: Slipway, options: argparse.Namespace) -> int:
    """Fork a run, wait for the end of the fork, and show how they differ. Exit code 1 for one that failed."""
    prompt = _text(options.prompt) if options.prompt is not None else None
    forked = client.runs.fork(options.id, options.from_step, prompt=prompt, model=options.model)
    client.tasks.wait(forked)
    run = client.runs.get(forked.run_id)
    if options.json:
        as_json(run)
    else:
        _show_fork(run)
    return 0 if run.status == "succeeded" else 1


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadArgument(f"{path} cannot be read as text.") from None


def _show_fork(run: Run) -> None:
    if run.difference is not None:
        told = run.difference
        pairs: dict[str, Mapping[str, object]] = {
            "model calls": told.model_calls,
            "tool calls": told.tool_calls,
            "USD": told.cost_usd,
        }
        rows = [(name, pair["before"], pair["after"]) for name, pair in pairs.items()]
        table(
            rows, f"FROM STEP {run.forked_from.step if run.forked_from else ''}", "BEFORE", "FORK", empty=""
        )
        line("The answers are the same." if told.output_same else told.output_diff or run.output)
    summary(run)
