"""`flask mcp`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from service.audit.record import Action, record
from service.cli.common import (
    Commands,
    as_json,
    in_workspace,
    print_json,
    print_rows,
    printable,
    services,
    user_named,
)
from service.mcp.config import ServerSpec
from service.mcp.connection import ConnectionLost, NotConnected
from service.mcp.connections import Connections, Key
from service.store import mcp as rows
from service.store.database import Transaction

CHECK_SECONDS = 20.0
mcp = Commands("mcp", help="Tools of MCP servers: their definitions, and credentials towards them.")
credential = Commands("credential", help="Credentials towards servers.")
mcp.add_command(credential)


@mcp.command("list")
@as_json
def list_tools(as_json: bool) -> None:
    """List the tools of all servers with the state of their definitions; JSON shows both definitions."""
    kept = {(row["server"], row["tool"]): row for row in services().infra.db.query(rows.every)}
    listed = [
        _listed(server, tool, rule.risk, kept.get((server, tool)))
        for server, spec in _servers().items()
        for tool, rule in spec.tools.items()
    ]
    print_rows(listed, "tool risk state digest offered", "There are no MCP servers.", as_json=as_json)


def _listed(server: str, tool: str, risk: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        definition = {"digest": None, "offered": None, "definition": None, "offered_definition": None}
        return {"tool": f"{server}.{tool}", "risk": risk, "state": "unseen", **definition}
    offered = row["offered_digest"]
    return {
        "tool": f"{server}.{tool}",
        "risk": risk,
        "state": "accepted" if offered is None else "changed",
        "digest": row["digest"][:12],
        "offered": offered and offered[:12],
        "definition": row["definition"],
        "offered_definition": row["offered"],
    }


@mcp.command()
@click.option("--user", metavar="NAME", help="User whose credential is sent, where each user has one.")
@in_workspace
def check(user: str | None, workspace: str) -> None:
    """Validate the file of servers and reach each server; pin definitions that are new."""
    config, connections = services().mcp.config, services().mcp.connections
    for fault in config.faults:
        click.echo(f"{config.file}:{fault.line}: {fault.field}: {fault.detail}")
    if config.faults:
        raise click.ClickException("The file of servers cannot be used.")
    if connections is None:
        return click.echo(f"There are no MCP servers in {config.file}.")
    user_id = "" if user is None else user_named(user, workspace).id
    lines = [(name, reached(connections, name, spec, user_id)) for name, spec in config.servers.items()]
    for name, told in lines:
        click.echo(f"{name}: {told or 'reached'}")
    if any(told for _, told in lines):
        raise SystemExit(1)


def reached(connections: Connections, name: str, spec: ServerSpec, user_id: str) -> str:
    """Reach a server; return what is wrong with it, empty if nothing."""
    if spec.credentials == "user" and not user_id:
        return "needs --user, as each user has a credential"
    try:
        key = Key(name, user_id if spec.credentials == "user" else "")
        connections.of(key)
        found = connections.look(key, CHECK_SECONDS)
    except (NotConnected, ConnectionLost, TimeoutError):
        return "is not reached"
    missing = [tool for tool in spec.tools if tool not in found]
    return f"does not offer {', '.join(missing)}" if missing else ""


@mcp.command()
@click.argument("server")
@click.argument("tool")
def accept(server: str, tool: str) -> None:
    """Accept the changed definition of a tool; `flask mcp list --json` shows it first."""

    def work(tx: Transaction) -> Mapping[str, Any] | None:
        row = rows.get(tx, server, tool)
        if row is None or row["offered_digest"] is None:
            return None
        rows.accept(tx, server, tool, row["offered_digest"])
        digest = row["offered_digest"][:12]
        record(tx, Action.MCP_ACCEPTED, f"mcp:{server}.{tool}", before=row["digest"][:12], after=digest)
        return row

    row = services().infra.db.transact(work)
    if row is None:
        raise click.ClickException(f"{printable(server)}.{printable(tool)} has no changed definition.")
    print_json(row["offered"])
    click.echo(f"Accepted {server}.{tool} ({row['offered_digest'][:12]}).")


@credential.command("set")
@click.argument("server")
@click.option("--user", metavar="NAME", help="User whose credential it is; without: the service's.")
@in_workspace
def set_credential(server: str, user: str | None, workspace: str) -> None:
    """Read a credential from standard input and keep it encrypted."""
    user_id = _owner(server, user, workspace)
    sealed = services().mcp.credentials.sealed(sys.stdin.readline().strip())

    def work(tx: Transaction) -> None:
        rows.set_credential(tx, server, user_id, sealed)
        record(tx, Action.MCP_CREDENTIAL, f"mcp:{server}", owner=user_id or "service")

    services().infra.db.transact(work)
    click.echo(f"Kept the credential for {server}.")


@credential.command()
@click.argument("server")
@click.option("--user", metavar="NAME", help="User whose credential it is; without: the service's.")
@in_workspace
def remove(server: str, user: str | None, workspace: str) -> None:
    """Delete a credential."""
    user_id = _owner(server, user, workspace)

    def work(tx: Transaction) -> bool:
        deleted = rows.delete_credential(tx, server, user_id)
        record(tx, Action.MCP_CREDENTIAL, f"mcp:{server}", owner=user_id or "service", removed=True)
        return deleted

    services().infra.db.transact(work)
    click.echo(f"Removed the credential for {server}.")


def _owner(server: str, user: str | None, workspace: str) -> str:
    """Return the id of a credential's owner, empty for the service. Raises `ClickException` where it has no use."""
    spec = _servers().get(server)
    if spec is None:
        raise click.ClickException(f"There is no MCP server {printable(server)}.")
    if spec.credentials != ("user" if user else "service"):
        raise click.ClickException(f"{server} has `credentials: {spec.credentials}` in the file of servers.")
    return user_named(user, workspace).id if user else ""


def _servers() -> Mapping[str, ServerSpec]:
    return services().mcp.config.servers
