"""`slipway ask`, `slipway chat` and `slipway runs follow`: a run in the terminal, with decisions and Ctrl-C."""

from __future__ import annotations

import argparse
import sys

from slipway_client.cli.approving import decide_here
from slipway_client.cli.console import MAX_LINE, answered, as_json, fail, line, note, out, person
from slipway_client.cli.show import Show, summary
from slipway_client.client import Slipway
from slipway_client.errors import APIError, SlipwayError
from slipway_client.models import RunResult
from slipway_client.streams import EventStream

DONE, FAILED, WAITS, INTERRUPTED = 0, 1, 3, 130


def ask(client: Slipway, options: argparse.Namespace) -> int:
    question = " ".join(options.question) or sys.stdin.read(MAX_LINE)
    with client.agents.stream(options.agent, question, session_id=options.session) as stream:
        return attend(client, stream, options.json)


def follow(client: Slipway, options: argparse.Namespace) -> int:
    """Show a run that somebody started: Ctrl-C leaves it alone."""
    with client.runs.events(options.id) as stream:
        return _attend(client, stream, options.json)


def chat(client: Slipway, options: argparse.Namespace) -> int:
    """Talk: a question a line, also from a pipe. Return the worst outcome of the turns."""
    session = options.session or client.sessions.create(options.agent).id
    note(f"session {session}; Ctrl-C cancels a turn, Ctrl-D ends")
    worst = DONE
    while (question := read_line("> ")) is not None:
        if not question.strip():
            continue
        try:
            with client.agents.stream(options.agent, question, session_id=session) as stream:
                worst = max(worst, attend(client, stream, options.json))
        except APIError as refused:
            fail(str(refused))
            worst = max(worst, FAILED)
    return worst


def attend(client: Slipway, stream: EventStream, json: bool) -> int:
    """Show a run to its end and return the exit code. Ctrl-C cancels the run; a second one leaves at once."""
    try:
        return _attend(client, stream, json)
    except KeyboardInterrupt:
        if not stream.run_id:
            fail("Interrupted; the run may have begun: `slipway runs list`.")
            return INTERRUPTED
    note("  cancelling …")
    try:
        client.runs.cancel(stream.run_id)
    except APIError as refused:  # it has just ended
        note(f"  {refused.detail}")
    with client.runs.events(stream.run_id, after=stream.last_event_id) as rest:
        _attend(client, rest, json)
    return INTERRUPTED


def _attend(client: Slipway, stream: EventStream, json: bool) -> int:
    result: RunResult | None = None
    quiet = json or not out.is_terminal
    with Show(quiet) as show:
        for event in stream:
            show.event(event, stream)
            if event.type == "approval.required":
                show.pause()
                if not decide_here(client, str(event.data.get("approval_id"))):
                    fail(
                        f"The run {event.run_id} waits for a decision: `slipway runs follow {event.run_id}` after it."
                    )
                    return WAITS
            result = event.result or result
    if result is None:
        raise SlipwayError("The stream ended before the run's last event.")
    if json:
        as_json(result)
    elif quiet and result.output:
        line(result.output)
    summary(result)
    return DONE if result.status == "succeeded" else FAILED


def read_line(prompt: str) -> str | None:
    """Read a line; None at the end. Ctrl-C discards a line that is being typed."""
    while True:
        try:
            return answered(prompt)
        except KeyboardInterrupt:
            if not person():
                raise
            note("")
