"""Shared by the commands: services, one-line errors, number types, tables, JSON, pagination, progress."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click
import orjson
from flask import current_app
from flask.cli import AppGroup

from service.auth.users import User
from service.auth.workspaces import DEFAULT_NAME
from service.errors import DatabaseUnavailable, SlipwayError
from service.store.actor import Actor, acting_as
from service.store.outages import cause_of
from service.text.moments import parse_end
from service.text.numerals import amount, whole_number

if TYPE_CHECKING:
    from service.tools import ToolRunner
    from service.wiring import Services

in_workspace = click.option(
    "--workspace", metavar="NAME", default=DEFAULT_NAME, show_default=True, help="Workspace of the user."
)
LAYOUT = "\n\t"  # control characters of users' text that are printed
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


class WholeNumber(click.IntRange):
    """Integer option in ASCII digits; `int` also accepts other scripts' digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and whole_number(value.removeprefix("-")) is None:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return super().convert(value, param, ctx)


class RealNumber(click.FloatRange):
    """Decimal option in ASCII digits; `float` also accepts other scripts' digits, `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            try:
                amount(value)
            except ValueError:
                self.fail(f"{value!r} is not a number such as 1.5.", param, ctx)
        return super().convert(value, param, ctx)


class OverrideEnd(click.ParamType[int]):
    """Option for the end of an override, such as 2026-12-01T06:00:00Z, as ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_end(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}.", param, ctx)


until_option = click.option(
    "--until",
    metavar="TIME",
    type=OverrideEnd(),
    help="Then what stood before comes back: 2026-12-01T06:00:00Z.",
)
limit_option = click.option(
    "--limit", type=WholeNumber(1, 1000), default=20, show_default=True, help="How many at most."
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a `KeyboardInterrupt`: psycopg cancels a running statement on that exception only."""


def _terminate(*_: object) -> NoReturn:
    raise Terminated


@contextmanager
def stoppable() -> Iterator[None]:
    """End on Ctrl-C and SIGTERM with one line, and exit code 130 or 143."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as stopped:
        signum = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
        click.echo(f"Stopped by {signum.name}.", err=True)
        raise SystemExit(128 + signum) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def without_log_lines(level: int = logging.INFO) -> Iterator[None]:
    """Print no log lines of calls between those of a command; warnings stay, such as the place where a tool failed."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


class Commands(AppGroup):
    """Command group that prints service errors as one line (exit code 1) and handles Ctrl-C and SIGTERM."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stoppable(), acting_as(Actor("cli")):
                return super().invoke(ctx)
        except SlipwayError as error:
            faults = [f"{fault['pointer']}: {fault['detail']}" for fault in error.errors]
            message = "; ".join(faults) or error.detail
            if isinstance(error, DatabaseUnavailable) and error.__cause__ is not None:
                message = f"{message} Cause: {cause_of(error.__cause__)}"
            raise click.ClickException(message) from None


def services() -> Services:
    return cast("Services", current_app.extensions["slipway"])


def user_named(username: str, workspace: str) -> User:
    """Find a user by name in a workspace, or end the command with an error."""
    user = services().auth.users.by_name(username, workspace)
    if user is None:
        raise click.ClickException(f"There is no user {username}.")
    return user


def print_json(value: Any) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_rows(rows: Sequence[Mapping[str, Any]], columns: str, empty: str, *, as_json: bool = False) -> None:
    """Print whole rows as JSON, or `columns` of them as a table, aligned; `empty` is printed instead of no rows."""
    if as_json:
        return print_json(rows)
    if not rows:
        return click.echo(empty)
    names = columns.split()
    cells = [[name.upper() for name in names]]
    cells += [[printable(_cell(row[name])) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def printable(text: str, keep: str = "") -> str:
    """Replace control characters but those to `keep`, such as terminal escapes in users' text, by spaces."""
    return "".join(letter if letter.isprintable() or letter in keep else " " for letter in text)


def paginate(fetch: Callable[..., list[Any]], id_of: Callable[[Any], str]) -> Iterator[Any]:
    """Iterate over all items, fetching pages of 100 with the arguments `limit` and `after`, an id."""
    last: str | None = None
    while batch := fetch(limit=100, after=last):
        yield from batch
        last = id_of(batch[-1])


@contextmanager
def worker_lease(tools: ToolRunner | None = None) -> Iterator[Services]:
    """Services that may execute runs in this process: holds a worker lease, but recovers no other worker's runs.

    `tools`: caller of tools, as `wiring.build` takes it.
    """
    from service import wiring
    from service.runs.recovery.supervisor import ProcessRole

    leased = wiring.build(services().settings, ProcessRole("cli"), tools=tools)
    leased.runs.supervisor.start()
    try:
        yield leased
    finally:
        leased.close()


def _cell(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class Progress:
    """Progress lines on stderr for a long read, every `EVERY` seconds; none for a short one."""

    EVERY = 5.0  # seconds

    def __init__(self, expected: int | None) -> None:
        self._expected = expected or 0  # the database's estimate; 0: unknown
        self._rows = 0
        self._began = time.monotonic()
        self._printed_at = self._began

    def read(self, rows: int) -> None:
        """Count `rows` more, and print a line when one is due."""
        self._rows += rows
        now = time.monotonic()
        if now - self._printed_at >= self.EVERY:
            self._printed_at = now
            click.echo(self._line(now - self._began), err=True)

    def _line(self, seconds: float) -> str:
        if self._rows >= self._expected:  # also in a second pass that names the faults
            return f"{self._rows} rows read in {seconds:.0f} s"
        left = seconds * (self._expected - self._rows) / self._rows if self._rows else 0
        share = self._rows * 100 // self._expected
        return f"{self._rows} of about {self._expected} rows read, {share} %, about {left:.0f} s left"
