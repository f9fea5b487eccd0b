"""Command line for operators.

`flask runs`, `schedules`, `users`, `workspaces`, `keys`, `agents`, `evals`, `knowledge`, `prices`, `ledger`,
`budgets`, `usage`, `audit`, `mcp` and `keyring`; `flask doctor`.
"""

from __future__ import annotations

from flask import Flask

from service.cli import (
    agent_versions,
    agents,
    audit,
    chat,
    doctor,
    eval_cases,
    evals,
    keyring,
    keys,
    knowledge,
    mcp,
    money,
    new_agent,
    runs,
    schedules,
    usage,
    users,
    workspaces,
)


def install(app: Flask) -> None:
    """Register the command groups with `flask`. Commands need no web server, only its settings."""
    money_groups = (money.prices, money.ledger, money.budgets, usage.usage)
    accounts = (users.users, workspaces.workspaces, keys.keys)
    work = (runs.runs, schedules.schedules, agents.agents, evals.evals, knowledge.knowledge)
    for group in (*work, *accounts, *money_groups, audit.audit, keyring.keyring, mcp.mcp):
        app.cli.add_command(group)
    app.cli.add_command(doctor.doctor)
    for command in (new_agent.new, chat.chat, *agent_versions.COMMANDS):
        agents.agents.add_command(command)
    for command in (eval_cases.from_run, eval_cases.from_feedback):
        evals.evals.add_command(command)
