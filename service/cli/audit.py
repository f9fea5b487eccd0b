"""`flask audit`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from service.audit import read
from service.audit.checkpoint import NoCheckpoint
from service.audit.verify import AuditFault, Verified, verify_all
from service.cli.common import Commands, Progress, WholeNumber, as_json, print_json, services

audit = Commands("audit", help="The audit: proof that it is whole, checkpoints of it, and its export.")


@audit.command()
@click.option(
    "--checkpoint",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with the checkpoints in this file, one a line.",
)
@click.option("--public-key", help="Whose checkpoints they are, where SECRET_KEY was another then.")
@click.option("--workspace", "workspace_id", metavar="ID", help="Of this one only.")
@click.option("--after-seq", type=WholeNumber(0), default=0, help="After this link: older ones are archived.")
@as_json
def verify(
    file: Path | None, public_key: str | None, workspace_id: str | None, after_seq: int, as_json: bool
) -> None:
    """Verify every row of every workspace. Exits 1 and names the first that is wrong. Read-only."""
    if after_seq and workspace_id is None:
        raise click.UsageError("Name the workspace whose link it is.")
    found = list(verify_all(services().infra.db, Progress(None).read, workspace_id, after_seq))
    compared = list(_compared(file, public_key)) if file else []
    ok = all(one.ok for one in found) and all(entry["fault"] is None for entry in compared)
    if as_json:
        print_json({"ok": ok, "workspaces": [one.public() for one in found], "checkpoints": compared})
    else:
        for one in found:
            click.echo(_line(one))
        for entry in compared:
            click.echo(
                f"{'WRONG' if entry['fault'] else 'ok   '} checkpoint of line {entry['line']}: {entry['told']}"
            )
    sys.exit(0 if ok else 1)


def _line(one: Verified) -> str:
    fault = f": {_told(one.first_fault)}" if one.first_fault else ""
    waiting = f", {one.unlinked} not linked yet" if one.unlinked else ""
    return f"{'ok   ' if one.ok else 'WRONG'} {one.workspace_id} {one.checked} links{waiting}{fault}"


def _told(fault: AuditFault) -> str:
    where = [f"link {fault.seq}"] if fault.seq is not None else []
    where += [f"row {fault.audit_id}"] if fault.audit_id else []
    return f"{', '.join(where)}: {fault.fault}"


def _compared(file: Path, public_key: str | None) -> Iterator[dict[str, Any]]:
    """Compare the chain with each checkpoint of a file."""
    points = services().audit.checkpoints
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            point = points.read(line, public_key)
        except NoCheckpoint as error:
            yield {"line": number, "fault": "unreadable", "told": str(error)}
            continue
        fault = points.compare(point)
        told = _told(fault) if fault else f"{point.workspace_id} up to link {point.seq}, {point.at}"
        yield {"line": number, "fault": fault.fault if fault else None, "told": told}


@audit.command()
def checkpoint() -> None:
    """Print the signed head of each workspace's chain, one line of JSON each: keep them elsewhere."""
    for line in services().audit.checkpoints.lines():
        click.echo(line)


@audit.command()
@click.option("--workspace", "workspace_id", metavar="ID", help="Of this one only.")
@click.option("--after", metavar="ID", default="", help="Of rows after this one.")
def export(workspace_id: str | None, after: str) -> None:
    """Print the rows with their links as JSON lines, oldest first, as stored: whoever has them can verify them."""
    for row in read.export(services().infra.db, workspace_id, after):
        click.echo(orjson.dumps(row, option=orjson.OPT_NON_STR_KEYS).decode())
