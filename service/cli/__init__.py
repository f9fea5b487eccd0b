"""What an operator does from a shell: `flask runs`, `flask users`, `flask keys`, `flask agents`, and the money."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from flask import Flask

from service.cli import agents, keys, runs, users


def install(app: Flask) -> None:
    """Add the groups to `flask`. They need no web server, only the settings it would have."""
    groups = [runs.runs, users.users, keys.keys, agents.agents]
    if find_spec("service.cli.money"):
        money = import_module("service.cli.money")
        groups += [money.prices, money.ledger, money.budgets]
    for group in groups:
        app.cli.add_command(group)
