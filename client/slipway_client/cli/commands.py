"""Arguments of the command `slipway`, and its exit codes: 0 done, 1 failed, 2 wrong usage, 3 waits, 130 interrupted."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import slipway_client
from slipway_client.cli import approving, asking, remembering, reports, running, scheduling, signing_in
from slipway_client.cli.config import connected
from slipway_client.cli.console import fail
from slipway_client.client import Slipway
from slipway_client.errors import SlipwayError

Command = Callable[[Slipway, argparse.Namespace], int]


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.alone is not None:
            return int(options.alone(options))
        with connected(options.url) as client:
            return int(options.command(client, options))
    except SlipwayError as error:
        fail(str(error))
        return asking.FAILED
    except KeyboardInterrupt:
        return asking.INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return asking.DONE


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        "slipway", description="Ask agents of a Slipway server, and look after their runs."
    )
    root.add_argument("--version", action="version", version=slipway_client.__version__)
    root.add_argument("--url", help="base URL of the server; else SLIPWAY_BASE_URL, else that of the log-in")
    root.set_defaults(alone=None)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _login(commands)
    _ask(commands)
    _runs(_group(commands, "runs", "list, show, follow, cancel and fork runs"))
    _approvals(_group(commands, "approvals", "decide about tool calls that wait for a person"))
    _usage(commands)
    _schedules(_group(commands, "schedules", "runs by cron"))
    _memory(_group(commands, "memory", "notes of agents about you"))
    return root


def _group(commands: Any, name: str, about: str) -> Any:
    return commands.add_parser(name, help=about, description=about).add_subparsers(
        required=True, metavar="COMMAND"
    )


def _command(commands: Any, name: str, command: Command, about: str) -> argparse.ArgumentParser:
    """Add a command that talks to the server, with `--json`."""
    made: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    made.add_argument("--json", action="store_true", help="print JSON, as the API answers")
    made.set_defaults(command=command)
    return made


def _login(commands: Any) -> None:
    about = "sign in and keep the log-in; the password or key is asked for, or read from stdin"
    login = commands.add_parser("login", help=about, description=about)
    login.add_argument("--url", default=argparse.SUPPRESS, help="base URL of the server")
    login.add_argument("--username")
    login.add_argument("--workspace", help="the user's workspace, if not `default`")
    login.add_argument("--api-key", action="store_true", help="keep an API key in place of a log-in")
    login.set_defaults(alone=signing_in.login)
    about = "end the log-in and forget it"
    commands.add_parser("logout", help=about, description=about).set_defaults(alone=signing_in.logout)


def _ask(commands: Any) -> None:
    about = "ask an agent; Ctrl-C cancels the run"
    ask = _command(commands, "ask", asking.ask, about)
    ask.add_argument("agent")
    ask.add_argument("question", nargs="*", help="the question; without any, stdin")
    ask.add_argument("--session", metavar="ID", help="ask as a turn of this session")
    chat = _command(commands, "chat", asking.chat, "talk to an agent, a question a line")
    chat.add_argument("agent")
    chat.add_argument("--session", metavar="ID", help="go on with this session")


def _runs(commands: Any) -> None:
    found = _command(commands, "list", running.list_runs, "list runs, newest first")
    found.add_argument("--status")
    found.add_argument("--agent")
    found.add_argument("--session", metavar="ID")
    found.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")
    for name, command, about in (
        ("show", running.show_run, "show a run with its steps"),
        ("follow", asking.follow, "show the events of a run, to its end; Ctrl-C leaves it alone"),
        ("cancel", running.cancel_run, "cancel a run"),
    ):
        _command(commands, name, command, about).add_argument("id")
    fork = _command(
        commands, "fork", running.fork_run, "run again from a step, tools answered from the record"
    )
    fork.add_argument("id")
    fork.add_argument("--from", dest="from_step", type=int, required=True, metavar="STEP")
    fork.add_argument("--prompt", type=Path, metavar="FILE", help="in place of the agent's (for operators)")
    fork.add_argument("--model", metavar="NAME", help="in place of the agent's models (for operators)")


def _approvals(commands: Any) -> None:
    found = _command(commands, "list", approving.list_approvals, "list approvals, newest first")
    statuses = ("pending", "approved", "denied", "cancelled", "all")
    found.add_argument("--status", choices=statuses, default="pending", help="default: pending")
    _command(
        commands, "show", approving.show_approval, "show a call with all that it follows from"
    ).add_argument("id")
    approve = _command(commands, "approve", approving.approve, "approve the call that is shown")
    approve.add_argument("--yes", action="store_true", help="do not ask again")
    deny = _command(commands, "deny", approving.deny, "deny a call")
    for decision in (approve, deny):
        decision.add_argument("id")
        decision.add_argument("--comment")


def _usage(commands: Any) -> None:
    usage = _command(commands, "usage", reports.usage, "show what was spent, and what is left")
    usage.add_argument(
        "--by", default="day", help="hour, day, agent, model, user, key, end_user; with commas; default: day"
    )
    usage.add_argument("--since", type=date.fromisoformat, metavar="DATE", help="default: 30 days ago")
    usage.add_argument("--until", type=date.fromisoformat, metavar="DATE", help="inclusive; default: today")


def _schedules(commands: Any) -> None:
    _command(commands, "list", scheduling.list_schedules, "list own schedules")
    add = _command(commands, "add", scheduling.add_schedule, "have an agent run by cron")
    add.add_argument("agent")
    add.add_argument("cron", help='such as "0 9 * * MON-FRI"')
    add.add_argument("question", nargs="+")
    add.add_argument("--timezone", metavar="ZONE", help="such as Europe/Berlin")
    add.add_argument(
        "--missed", choices=("skip", "once", "all"), help="what becomes of slots that were missed"
    )
    add.add_argument("--cap-usd", metavar="USD")
    for name, command, about in (
        ("pause", scheduling.pause_schedule, "pause a schedule"),
        ("resume", scheduling.resume_schedule, "resume a paused schedule"),
    ):
        _command(commands, name, command, about).add_argument("id")


def _memory(commands: Any) -> None:
    for name, command, about in (
        ("list", remembering.list_notes, "list the notes about you, or about an end user"),
        ("show", remembering.show_note, "show a note"),
        ("set", remembering.set_note, "write a note, replacing one of this key"),
        ("rm", remembering.delete_note, "delete a note"),
    ):
        made = _command(commands, name, command, about)
        if name != "list":
            made.add_argument("key")
        if name == "set":
            made.add_argument("text", nargs="+")
        made.add_argument("--end-user", metavar="NAME", help="your name for the person it is about")
        made.add_argument("--key-id", metavar="ID", help="API key whose end user that is")
