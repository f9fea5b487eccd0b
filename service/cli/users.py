"""`flask users`."""

from __future__ import annotations

import sys
from functools import partial
from operator import attrgetter

import click
import orjson

from service.auth.users import Role
from service.cli.common import (
    Commands,
    as_json,
    in_workspace,
    paginate,
    print_json,
    print_rows,
    services,
    until_option,
    user_named,
)
from service.privacy.export import export
from service.store.run_limits import NewLimit
from service.types import DEFAULT_WORKSPACE

users = Commands("users", help="Who may sign in.")
_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@users.command()
@click.argument("username")
@click.option("--role", type=click.Choice(["user", "operator", "admin"]), default="user", show_default=True)
@click.option("--limit-runs", metavar="RATE", help="A rate of their own, such as 60/minute.")
@in_workspace
@_stdin
def add(username: str, role: Role, limit_runs: str | None, workspace: str, password_stdin: bool) -> None:
    """Add a user; asks for the password."""
    auth = services().auth
    workspace_id = auth.workspaces.named(workspace).id
    user = auth.users.create(username, _password(password_stdin), role, limit_runs, workspace_id)
    click.echo(f"Added {user.role} {user.username} ({user.id}).")


@users.command("list")
@click.option("--workspace", metavar="NAME", help="Only users of this workspace.")
@as_json
def list_users(workspace: str | None, as_json: bool) -> None:
    """List users, oldest first."""
    auth = services().auth
    of_one = workspace and auth.workspaces.named(workspace).id
    page = partial(auth.users.page, workspace_id=of_one)
    rows = [user.public() for user in paginate(page, attrgetter("id"))]
    columns = "id username role disabled limit_runs created_at"
    if any(row["workspace_id"] != (of_one or DEFAULT_WORKSPACE) for row in rows):
        columns += " workspace_id"
    print_rows(rows, columns, "There are no users.", as_json=as_json)


@users.command()
@click.argument("username")
@click.option("--undo", is_flag=True, help="Let them sign in again.")
@in_workspace
def disable(username: str, undo: bool, workspace: str) -> None:
    """Revoke a user's log-ins and keys at once, cancel their runs, and refuse new ones."""
    services().auth.users.change(user_named(username, workspace).id, disabled=not undo)
    click.echo(f"{username} can sign in again." if undo else f"Disabled {username}.")


@users.command()
@click.argument("username")
@in_workspace
def show(username: str, workspace: str) -> None:
    """Print one user as JSON."""
    print_json(user_named(username, workspace).public())


@users.command()
@click.argument("username")
@click.argument("role", type=click.Choice(["user", "operator", "admin"]))
@in_workspace
def role(username: str, role: Role, workspace: str) -> None:
    """Give a user another role, and revoke their log-ins: tokens say what one may."""
    services().auth.users.change(user_named(username, workspace).id, role=role)
    click.echo(f"{username} is {role}.")


@users.command()
@click.argument("username")
@click.argument("rate", metavar="RATE|none")
@until_option
@in_workspace
def limit(username: str, rate: str, until: int | None, workspace: str) -> None:
    """Set a user's limit on runs, such as 60/minute, and revoke their log-ins; none: the setting's."""
    rate = "" if rate == "none" else rate
    user_id, users = user_named(username, workspace).id, services().auth.users
    user = users.change(user_id, limit=NewLimit(rate, until))
    click.echo(f"The limit of {username} is {user.limit_runs or services().settings.limit_runs or 'none'}.")


@users.command()
@click.argument("username")
@in_workspace
def logout(username: str, workspace: str) -> None:
    """Revoke all log-ins of a user at once; their keys stay, and they may sign in again."""
    services().auth.users.end_logins(user_named(username, workspace).id)
    click.echo(f"Ended the log-ins of {username}.")


@users.command()
@click.argument("username")
@in_workspace
@_stdin
def password(username: str, workspace: str, password_stdin: bool) -> None:
    """Set a user's password, and revoke their log-ins."""
    user = user_named(username, workspace)
    services().auth.users.change(user.id, password=_password(password_stdin))
    click.echo(f"Changed the password of {username}.")


@users.command()
@click.argument("username")
@click.option("--subject", required=True, help="Claim `sub` of the identity's tokens.")
@click.option("--issuer", default="", help="An issuer other than OIDC_ISSUER.")
@in_workspace
def link(username: str, subject: str, issuer: str, workspace: str) -> None:
    """Give an identity of the OpenID Connect issuer to a user."""
    identities = services().auth.identities
    if identities is None:
        raise click.ClickException("No issuer is configured: set OIDC_ISSUER.")
    identities.link(user_named(username, workspace), subject, issuer)
    click.echo(f"Linked {subject} to {username}.")


@users.command("webhook-secret")
@click.argument("username")
@in_workspace
def webhook_secret(username: str, workspace: str) -> None:
    """Print the secret that signs the webhooks of a user's runs."""
    click.echo(services().webhooks.secret_of(user_named(username, workspace).id))


@users.command("export")
@click.argument("username")
@in_workspace
def export_user(username: str, workspace: str) -> None:
    """Print all data of a user as JSON lines."""
    for line in export(services().infra.db, user_named(username, workspace).id):
        click.echo(orjson.dumps(line))


@users.command()
@click.argument("username")
@in_workspace
def erase(username: str, workspace: str) -> None:
    """Erase a user everywhere but for ids in the ledger and the audit. Cannot be undone."""
    done = services().erasures.erase(user_named(username, workspace).id)
    print_json(done)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        # A file that was written on Windows may begin with a byte order mark.
        return sys.stdin.readline().removeprefix("\ufeff").rstrip("\r\n")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return typed
