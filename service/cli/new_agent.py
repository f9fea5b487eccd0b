"""`flask agents new`."""

from __future__ import annotations

import os

import click
from flask.cli import with_appcontext

from service.agents.files import counted
from service.agents.new_folder import new_folder, patterns
from service.cli.common import services
from service.errors import Conflict

NEXT = {
    "check": "find mistakes, after each edit",
    "eval": "ask the questions of its evals.yaml",
    "chat": "talk to it",
}


@click.command()
@click.argument("name")
@click.option(
    "--pattern",
    type=click.Choice(patterns()),
    default="react",
    prompt="Pattern, see docs/agent-author.md",
    help="How it works: docs/agent-author.md lists the patterns. None: asked for.",
)
@with_appcontext
def new(name: str, pattern: str) -> None:
    """Make the folder of a new agent, which can be run at once: an example to change."""
    catalog, agents_dir = services().agents, services().settings.agents_dir
    if name in catalog.agents:
        raise Conflict(f"There is an agent {name} already: choose another name.")
    folder = new_folder(agents_dir, name, pattern)
    files = ", ".join(path.relative_to(folder).as_posix() for path in counted(folder))
    here = os.path.relpath(folder)
    click.echo(f"Made {folder if here.startswith('..') else here} (pattern {pattern}): {files}.")
    click.echo("Next:")
    for command, purpose in NEXT.items():
        typed = f"{command} {name}".ljust(len(name) + 6)
        click.echo(f"  .venv/bin/flask agents {typed}    {purpose}")
