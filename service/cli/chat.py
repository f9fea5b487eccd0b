"""`flask agents chat`: a session with an agent in the terminal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import click
import orjson
from flask.cli import with_appcontext

from service import approvals
from service.auth.permissions import PERMISSIONS
from service.cli.agents import caller_of, named
from service.cli.common import LAYOUT, in_workspace, printable, without_log_lines, worker_lease
from service.errors import SlipwayError
from service.ids import new_id
from service.store import approvals as approval_rows
from service.store.approvals import Decision
from service.store.database import Row, Transaction
from service.types import Caller, Event, Run, RunEvent, RunRequest
from service.wiring import Services

DECIDE = PERMISSIONS["POST /v1/approvals/<approval_id>"]
WHY = {
    "policy": "the agent or the tool asks for one each time",
    "untrusted": "the run has untrusted text",
    "unknown": "it may have been made already",
}
MAX_SHOWN = 500  # characters of a tool's arguments


@click.command()
@click.argument("name")
@click.option("--user", "username", help="Whose session it is, and whose spending. None: the first admin.")
@in_workspace
@with_appcontext
def chat(name: str, username: str | None, workspace: str) -> None:
    """Talk to an agent: a question a line, also from a pipe. Ctrl-C cancels the turn, Ctrl-D ends.

    The runs are real: their calls are billed, and `flask runs list` shows them. Exit code 1 when a turn failed.
    """
    with without_log_lines(), worker_lease() as leased:
        agent = named(leased, name)
        caller = caller_of(leased, username, workspace)
        talk = Chat(leased, caller, agent.id)
        for question in iter(partial(read_line, "> "), None):
            if question.strip():
                talk.turn(question)
    sys.exit(1 if talk.failed else 0)


class Chat:
    """Session of a user with an agent. `failed`: a turn has, or was left waiting for a decision."""

    def __init__(self, leased: Services, caller: Caller, agent: str) -> None:
        self._leased = leased
        self._caller = caller
        self._agent = agent
        session = leased.sessions.new(caller, agent, "", None)
        leased.infra.db.transact(lambda tx: leased.sessions.create(tx, session))
        self._session_id: str = session["id"]
        self.failed = False

    def turn(self, question: str) -> None:
        """Ask, print the events until the answer, and let the user decide about tool calls that wait."""
        message = {"role": "user", "content": question}
        request = RunRequest(self._agent, (message,), session_id=self._session_id, cache="bypass")
        try:
            started, batches = self._leased.runs.start.stream(self._caller, request, None, new_id("req"))
        except SlipwayError as error:  # it could not begin
            return self._fail(error.detail)
        try:
            self._listen(started.run, batches)
        finally:
            if started.place is not None:
                started.place.give()

    def _listen(self, run: Run, batches: Generator[list[RunEvent]]) -> None:
        seen = self._print(run, batches, 0)
        while seen is not None and self._decide(run.id):
            self._leased.runs.execution.take_up_in_background(run.id)
            seen = self._print(run, self._leased.runs.queries.follow(run.id, seen), seen)

    def _print(self, run: Run, batches: Generator[list[RunEvent]], seen: int) -> int | None:
        """Print events after number `seen`; return the number of the last one if the run waits, None at its end."""
        with self._cancelling(run), closing(batches):
            for event in (event for batch in batches for event in batch):
                if event.name is Event.RECONNECT:
                    return seen
                if event.name is Event.RUN_RESUMED and event.data["from_seq"] < seen:
                    note("The worker was lost. The answer begins again:")
                seen = event.seq
                print_event(event)
                if event.name.is_last:
                    self.failed |= event.name is not Event.RUN_COMPLETED
                    return None
        return seen

    @contextmanager
    def _cancelling(self, run: Run) -> Iterator[None]:
        """Cancel the run on Ctrl-C, in a thread: this one may hold a lock of the database's connections."""

        def cancel() -> None:
            with suppress(SlipwayError):  # it has ended, or the database is away
                self._leased.runs.cancellation.cancel(run)

        def interrupted(signum: int, frame: FrameType | None) -> None:
            threading.Thread(target=cancel, name="cancel", daemon=True).start()

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _decide(self, run_id: str) -> bool:
        """Let the user decide about each call that waits. False: none is left, or one stays undecided."""
        db = self._leased.infra.db
        waiting = db.query(lambda tx: approval_rows.pending(tx, run_id))
        decided = [self._decide_one(approvals.get(db, self._caller, one)) for one in waiting]
        if decided and all(decided):
            return True
        self._fail(f"The run {run_id} goes on without this command: it waits, or its worker was lost.")
        return False

    def _decide_one(self, row: Row) -> bool:
        click.echo(f"{row['name']} {shortened(row['arguments'])} needs an approval: {why(row)}.")
        answer = read_line("Approve? [y/n] ")
        if answer is None or answer.strip().lower() not in ("y", "yes", "n", "no"):
            return False
        by_others = self._leased.settings.approval_by_others
        said = Decision("approve" if answer.strip().lower()[0] == "y" else "deny", None, None, new_id("dec"))

        def work(tx: Transaction) -> None:
            approvals.decide(tx, self._caller, row["id"], said, by_others=by_others)

        try:
            DECIDE.check_role(self._caller)
            self._leased.infra.db.transact(work)
        except SlipwayError as error:
            self._fail(error.detail)
            return False
        return True

    def _fail(self, detail: str) -> None:
        self.failed = True
        click.echo(click.style(printable(detail), fg="red"), err=True)


def read_line(prompt: str) -> str | None:
    """Read a line; None at the end. The prompt is for a terminal only, where Ctrl-C discards the line."""
    while True:
        try:
            if sys.stdin.isatty():
                return input(prompt)
            return line.rstrip("\n") if (line := sys.stdin.readline()) else None
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            click.echo()


def print_event(event: RunEvent) -> None:
    """Print text as it comes, tool calls as lines of their own, and the end with its error, sources and cost."""
    data = event.data
    if event.name is Event.TEXT_DELTA:
        click.echo(printable(data["text"], keep=LAYOUT), nl=False)
    elif event.name is Event.TOOL_CALLED:
        note(f"{branch(data)}{data['name']} {shortened(data['arguments'])}")
    elif event.name is Event.TOOL_FINISHED:
        note(f"{branch(data)}{'ok' if data['ok'] else 'failed'} ({data['ms']} ms): {data['preview']}")
    elif event.name is Event.GUARDRAIL:
        note(f"{data['kind']} {data['action']}, whose hosts the agent does not list: {data['count']}")
    elif event.name.is_last:
        click.echo()
        if data.get("error"):
            click.echo(click.style(printable(data["error"]["detail"]), fg="red"), err=True)
        for source in dict.fromkeys(f"{source['title']} {source['uri']}" for source in data["sources"]):
            note(f"source: {source}")
        steps = "1 step" if data["steps"] == 1 else f"{data['steps']} steps"
        note(f"{data['run_id']}: {steps}, {data['usage']['cost_usd']} USD")
    sys.stdout.flush()


def branch(data: Mapping[str, Any]) -> str:
    """Return which sub-agent an event is of, such as `research 2: `; nothing for those of the lead."""
    return f"{data['agent']} {data['branch']}: " if "branch" in data else ""


def why(row: Row) -> str:
    """Return why a call waits, in words."""
    if row["untrusted"] and row["reason"] == "untrusted":
        taken = ", ".join(row["untrusted"]["pointers"])
        read = ", ".join(row["untrusted"]["sources"])
        return f"the run has untrusted text from {read}" + (f", in the arguments {taken}" if taken else "")
    return WHY[row["reason"]]


def note(text: str) -> None:
    click.echo(click.style(f"  {printable(text)}", dim=True))


def shortened(arguments: object) -> str:
    """Return JSON of a tool's arguments, without control characters."""
    text = orjson.dumps(arguments).decode()
    return printable(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")
