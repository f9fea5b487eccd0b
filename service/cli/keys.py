"""`flask keys`."""

from __future__ import annotations

import re
from functools import partial
from operator import itemgetter

import click

from service.cli.common import (
    Commands,
    WholeNumber,
    as_json,
    in_workspace,
    paginate,
    print_json,
    print_rows,
    services,
    user_named,
)
from service.types import now_ms, rfc3339

keys = Commands("keys", help="API keys of users; the keys that sign tokens.")
_SCOPE = re.compile(r"agents:(\*|[a-z][a-z0-9_-]{0,63}\*?)")


@keys.command()
@click.argument("username")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, help="Such as agents:support; may be given again. None: all."
)
@click.option("--days", type=WholeNumber(1, 3660), help="How long it is good for. None: until revoked.")
@in_workspace
@as_json
def add(
    username: str, name: str, scopes: tuple[str, ...], days: int | None, workspace: str, as_json: bool
) -> None:
    """Create a key for a user. The secret is shown now and never again."""
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise click.BadParameter(
                f"{scope} is not such as agents:support or agents:*", param_hint="--scope"
            )
    ends = now_ms() + days * 86_400_000 if days else None
    key = services().auth.keys.create(user_named(username, workspace).id, name, scopes, ends)
    if as_json:
        return print_json(key)
    click.echo(f"Made key {key['id']} for {username}; it is shown only now:", err=True)
    click.echo(key["key"])


@keys.command("list")
@click.argument("username")
@in_workspace
@as_json
def list_keys(username: str, workspace: str, as_json: bool) -> None:
    """List a user's keys that are not revoked."""
    user_id, known = user_named(username, workspace).id, services().auth.keys
    rows = list(paginate(partial(known.page, user_id), itemgetter("id")))
    columns = "id name prefix scopes created_at expires_at"
    print_rows(rows, columns, f"{username} has no keys.", as_json=as_json)


@keys.command()
@click.argument("username")
@click.argument("key_id")
@in_workspace
def revoke(username: str, key_id: str, workspace: str) -> None:
    """Revoke a key of a user at once, on every worker."""
    services().auth.keys.revoke(key_id, user_named(username, workspace).id)
    click.echo(f"Revoked {key_id}.")


@keys.command()
@click.option(
    "--stolen", is_flag=True, help="Refuse every token of the keys until now: all users sign in again."
)
def rotate(stolen: bool) -> None:
    """Sign tokens with a new key. Nobody is signed out, except with --stolen."""
    key = services().auth.tokens.keys.rotate(stolen=stolen)
    click.echo(f"Key {key.kid} signs from {rfc3339(key.signs_from)}.")
    if stolen:
        seconds = services().settings.sweep_seconds
        click.echo(f"Every process refuses the tokens of other keys after its next sweep ({seconds:g} s).")
