"""`flask agents`: published versions and canaries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from flask.cli import with_appcontext

from service.cli.common import RealNumber, as_json, print_json, print_rows, services
from service.store.database import Transaction


class Share(RealNumber):
    """Share of traffic in percent, such as 5% or 5, as a fraction."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        percent = value.strip().removesuffix("%") if isinstance(value, str) else value
        return super().convert(percent, param, ctx) / 100


@click.command()
@click.argument("name")
@as_json
@with_appcontext
def versions(name: str, as_json: bool) -> None:
    """List an agent's published versions, and which of them is served."""
    _print_versions(services().infra.db.query(partial(services().versions.shown, agent=name)), as_json)


@click.command()
@click.argument("name")
@as_json
@with_appcontext
def publish(name: str, as_json: bool) -> None:
    """Publish an agent's folder: store its files in the database as a version, for `pin`."""
    kept = services().versions
    _change(partial(kept.publish, row=kept.read(name)), as_json)


@click.command()
@click.argument("name")
@click.argument("version")
@as_json
@with_appcontext
def pin(name: str, version: str, as_json: bool) -> None:
    """Serve a published version in place of the folder, on all replicas within seconds."""
    _change(partial(services().versions.pin, agent=name, version=version), as_json)


@click.command()
@click.argument("name")
@as_json
@with_appcontext
def unpin(name: str, as_json: bool) -> None:
    """Serve an agent's folder again."""
    _change(partial(services().versions.pin, agent=name, version=None), as_json)


@click.command()
@click.argument("name")
@as_json
@with_appcontext
def rollback(name: str, as_json: bool) -> None:
    """Serve what was served before the last pin."""
    _change(partial(services().versions.roll_back, agent=name), as_json)


@click.command()
@click.argument("name")
@click.argument("version")
@click.option(
    "--share", required=True, type=Share(min=1, max=50), help="Percent of sessions and users, 1% to 50%."
)
@as_json
@with_appcontext
def canary(name: str, version: str, share: float, as_json: bool) -> None:
    """Serve a published version to a share of sessions and users; roll it back once it is worse than the pinned one."""
    work = partial(services().versions.start_canary, agent=name, version=version, share=share)
    _change(work, as_json)


@click.command("end-canary")
@click.argument("name")
@as_json
@with_appcontext
def end_canary(name: str, as_json: bool) -> None:
    """Serve the pinned version to everybody again."""
    _change(partial(services().versions.end_canary, agent=name), as_json)


def _change(work: Callable[[Transaction], dict[str, Any]], as_json: bool) -> None:
    _print_versions(services().infra.db.transact(work), as_json)


def _print_versions(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(shown)
    columns = "version pinned size published_by published_at"
    print_rows(shown["data"], columns, "No version is published.")
    name, pinned = shown["agent"], shown["pinned"]
    if pinned and services().settings.reload:
        click.echo(f"{name} is pinned to {pinned}, but here its folder is served: RELOAD is on.")
    else:
        click.echo(f"{name} is served from {f'version {pinned}' if pinned else 'its folder'}.")
    if shown["canary"] is not None:
        _print_canary(shown["canary"])


def _print_canary(shown: dict[str, Any]) -> None:
    state = f"{shown['outcome'].replace('_', ' ')} at {shown['ended_at']}" if shown["outcome"] else "on trial"
    why = f" in {shown['worse_in']}" if shown["worse_in"] else ""
    click.echo(f"\nCanary {shown['version']}, {shown['share'] * 100:g}% since {shown['since']}: {state}.")
    rows = [
        {
            "side": side,
            "runs": shown["runs"][side],
            "failures": shown["failures"][side],
            "cost_of_a_run": shown["cost"][side],
            "ratings": shown["feedback"][side]["ratings"],
            "mean_rating": shown["feedback"][side]["mean"],
        }
        for side in ("canary", "pinned")
    ]
    print_rows(rows, " ".join(rows[0]), "")
    click.echo(f"Verdict: {shown['verdict'].replace('_', ' ')}{why}.")


COMMANDS = (versions, publish, pin, unpin, rollback, canary, end_canary)
