"""`flask doctor`."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from service.cli.common import as_json, print_json, printable, services, stoppable, without_log_lines
from service.cli.doctor_checks import Check, Finding, checks
from service.errors import DatabaseUnavailable, SlipwayError
from service.store.outages import Unfit, cause_of
from service.wiring import Services

SECONDS = 25.0  # of all checks, which run side by side: an MCP server has 20 to answer
MARKS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


@click.command()
@as_json
@with_appcontext
def doctor(as_json: bool) -> None:
    """Say what is wrong with this installation, and how to mend it. Exits 1 for an error.

    Nothing is changed, but that definitions of MCP servers that are new are pinned, as by the service.
    """
    with stoppable(), without_log_lines(logging.CRITICAL):  # the findings say it
        found = [(part, finding) for part, each in _examined(services()) for finding in each]
    if as_json:
        print_json([{"part": part, **finding._asdict()} for part, finding in found])
    else:
        _print(found)
    if any(finding.state == "error" for _, finding in found):
        raise SystemExit(1)


def _examined(parts: Services) -> Iterator[tuple[str, list[Finding]]]:
    """Run all checks side by side; yield the findings of each."""
    running = [(part, _Examination(parts, check)) for part, check in checks(parts).items()]
    deadline = time.monotonic() + SECONDS
    for part, examination in running:
        yield part, examination.wait(deadline - time.monotonic())


class _Examination(threading.Thread):
    """One check in a thread of its own, so that none that hangs hides another."""

    def __init__(self, parts: Services, check: Check) -> None:
        super().__init__(name="doctor", daemon=True)
        self._parts, self._check = parts, check
        self._found: list[Finding] = []
        self.start()

    def wait(self, seconds: float) -> list[Finding]:
        self.join(max(0.0, seconds))
        if self.is_alive():
            return [
                *self._found,
                Finding("error", f"no answer within {SECONDS:.0f} s", "Check its address and network."),
            ]
        return self._found

    def run(self) -> None:
        try:
            self._found.extend(self._check(self._parts))
        except DatabaseUnavailable as error:
            self._found.append(_without_database(error))
        except SlipwayError as error:
            self._found.append(Finding("error", error.detail))
        except Exception as error:
            traceback.print_tb(error.__traceback__)  # the message may hold a secret
            self._found.append(Finding("error", f"the check itself failed: {type(error).__name__}"))


def _without_database(error: DatabaseUnavailable) -> Finding:
    cause = error.__cause__
    if isinstance(cause, Unfit):  # says what to do
        return Finding("error", str(cause))
    says = error.detail if cause is None else cause_of(cause)
    return Finding("error", says, "Check DATABASE_URL and its server.")


def _print(found: list[tuple[str, Finding]]) -> None:
    width = max(len(part) for part, _ in found)
    for part, finding in found:
        says = printable(f"{finding.says}. {finding.mend}" if finding.mend else finding.says)
        click.echo(f"{MARKS[finding.state]:7}  {part:{width}}  {says}")
    states = [finding.state for _, finding in found]
    click.echo(f"{states.count('error')} errors, {states.count('warning')} warnings.")
