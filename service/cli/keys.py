"""`flask keys`."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any

import click

from service.auth.permissions import check_scope
from service.cli.common import (
    Commands,
    WholeNumber,
    as_json,
    in_workspace,
    paginate,
    print_json,
    print_rows,
    services,
    until_option,
    user_named,
)
from service.types import now_ms, rfc3339

keys = Commands("keys", help="API keys of users; the keys that sign tokens.")


@keys.command()
@click.argument("username")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Such as agents:support, actions:runs:*; may be given again. None: all.",
)
@click.option("--days", type=WholeNumber(1, 3660), help="How long it is good for. None: until revoked.")
@click.option("--limit-runs", help="Such as 60/minute, below the user's limit. None: the user's.")
@in_workspace
@as_json
def add(
    username: str, name: str, scopes: tuple[str, ...], workspace: str, as_json: bool, **limits: Any
) -> None:
    """Create a key for a user. The secret is shown now and never again."""
    for scope in scopes:
        try:
            check_scope(scope)
        except ValueError as error:
            raise click.BadParameter(f"{scope} {error}", param_hint="--scope") from None
    ends = now_ms() + limits["days"] * 86_400_000 if limits["days"] else None
    user_id = user_named(username, workspace).id
    key = services().auth.keys.create(user_id, name, scopes, ends, limits["limit_runs"])
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
    user_id = user_named(username, workspace).id
    rows = list(paginate(partial(services().auth.keys.page, user_id), itemgetter("id")))
    columns = "id name prefix scopes created_at expires_at last_used_at"
    print_rows(rows, columns, f"{username} has no keys.", as_json=as_json)


@keys.command()
@click.argument("username")
@click.argument("key_id")
@in_workspace
def revoke(username: str, key_id: str, workspace: str) -> None:
    """Revoke a key of a user at once, on every worker."""
    services().auth.keys.revoke(key_id, user_named(username, workspace).id)
    click.echo(f"Revoked {key_id}.")


@keys.command("limit")
@click.argument("username")
@click.argument("key_id")
@click.argument("rate")
@until_option
@in_workspace
def limit_key(username: str, key_id: str, rate: str, until: int | None, workspace: str) -> None:
    """Limit the runs of a key, such as 60/minute, below its user's limit; `none` lifts it."""
    user_id = user_named(username, workspace).id
    services().auth.keys.limit(key_id, user_id, "" if rate == "none" else rate, until)
    click.echo(f"Limited {key_id}.")


@keys.command("rotate-secret")
@click.argument("username")
@click.argument("key_id")
@click.option("--overlap", type=WholeNumber(0, 2_592_000), default=86_400, help="Seconds; a day.")
@in_workspace
@as_json
def rotate_secret(username: str, key_id: str, overlap: int, workspace: str, as_json: bool) -> None:
    """Give a key another secret, shown now and never again. The old one works for --overlap more."""
    user_id = user_named(username, workspace).id
    key = services().infra.db.transact(services().auth.keys.rotation(key_id, user_id, overlap))
    if as_json:
        return print_json(key)
    click.echo(f"The old secret of {key_id} works until {key['previous_expires_at']}.", err=True)
    click.echo(key["key"])


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
