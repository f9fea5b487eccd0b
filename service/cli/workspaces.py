"""`flask workspaces`."""

from __future__ import annotations

from operator import attrgetter

import click

from service.cli.common import Commands, as_json, paginate, print_rows, services
from service.store.database import Transaction

workspaces = Commands("workspaces", help="Tenants of this service; `default` is always there.")


@workspaces.command("list")
@as_json
def list_workspaces(as_json: bool) -> None:
    """List workspaces, oldest first."""
    rows = [found.public() for found in paginate(services().auth.workspaces.page, attrgetter("id"))]
    print_rows(rows, "id name disabled created_at", "There are no workspaces.", as_json=as_json)


@workspaces.command()
@click.argument("name")
def add(name: str) -> None:
    """Add a workspace; `flask users add --workspace` puts users into it."""
    auth = services().auth
    row = auth.workspaces.new_row(name)

    def work(tx: Transaction) -> None:
        auth.workspaces.insert(tx, row)

    services().infra.db.transact(work)
    click.echo(f"Added {name} ({row['id']}).")


@workspaces.command()
@click.argument("name")
@click.argument("new_name")
def rename(name: str, new_name: str) -> None:
    """Rename a workspace: its users sign in with the new name."""
    _change(name, name=new_name)
    click.echo(f"Renamed {name} to {new_name}.")


@workspaces.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let its users sign in again.")
def disable(name: str, undo: bool) -> None:
    """End all log-ins of a workspace's users at once, and refuse new ones and their keys."""
    _change(name, disabled=not undo)
    click.echo(f"Users of {name} can sign in again." if undo else f"Disabled {name}.")


@workspaces.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a workspace without users; the ledger keeps what it spent."""
    auth = services().auth
    auth.workspaces.delete(auth.workspaces.named(name).id)
    click.echo(f"Deleted {name}.")


def _change(workspace: str, *, name: str | None = None, disabled: bool | None = None) -> None:
    auth = services().auth
    auth.workspaces.change(auth.workspaces.named(workspace).id, name=name, disabled=disabled)
