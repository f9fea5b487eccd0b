"""`flask workspaces`."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, BinaryIO

import click
import yaml

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
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--remove", is_flag=True, help="Remove them.")
def guardrails(name: str, file: BinaryIO | None, remove: bool) -> None:
    """Print the guardrails of a workspace, or replace them by those of a YAML file (`-`: standard input)."""
    auth = services().auth
    if file is None and not remove:
        found = auth.workspaces.named(name).guardrails
        return click.echo(yaml.safe_dump(found or {}, sort_keys=False).rstrip())
    auth.workspaces.change(auth.workspaces.named(name).id, guardrails={} if file is None else _rails_in(file))
    click.echo(f"Removed the guardrails of {name}." if file is None else f"Set the guardrails of {name}.")


def _rails_in(file: BinaryIO) -> dict[str, Any]:
    """Read guardrails as `agent.yaml` has them, with or without the field's name above them."""
    try:
        data = yaml.safe_load(file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise click.ClickException(f"The file is not YAML, in line {line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise click.ClickException("The file is not YAML.") from None
    if isinstance(data, dict) and data.keys() == {"guardrails"}:
        data = data["guardrails"]
    if not isinstance(data, dict):
        raise click.ClickException("The file must hold the fields of `guardrails`.")
    return data


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
