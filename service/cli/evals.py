"""`flask evals`: ask agents the cases of their evals.yaml, compare with a baseline, keep it, make cases of runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from service.agents.definitions import AgentDefinition
from service.agents.files import version_of
from service.cli.agents import named
from service.cli.common import Commands, WholeNumber, services, without_log_lines
from service.cli.eval_output import Meter, print_report
from service.evals import gate, junit, results
from service.evals.asking import Asker
from service.evals.evaluation import Evaluation, Report, comparison
from service.evals.house import House, offline, open_house
from service.evals.judge import Judge
from service.evals.results import BadBaseline, Record, Results
from service.usage.caps import nano_of

evals = Commands("evals", help="Evals of agents: do they answer as expected, and as well as before?")
REPEAT = 10  # of a model that answers differently each time
FILE = click.Path(dir_okay=False, path_type=Path)


class Dollars(click.ParamType[int]):
    """Option in dollars, such as 0.50, as nano-dollars."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            nano = nano_of(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}.", param, ctx)
        return nano if nano else self.fail("A cap of 0 allows no call.", param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of `flask evals run`."""

    names: tuple[str, ...]
    against: Path | None
    repeat: int | None
    cap: int
    jobs: int
    judge: str | None
    offline: bool
    json_file: Path | None
    junit_file: Path | None
    baseline_out: Path | None
    keep: bool


@evals.command()
@click.option("--agent", "names", multiple=True, help="Only this agent's cases; again for more.")
@click.option("--against", type=FILE, metavar="BASELINE", help="Results to compare with. None: those kept.")
@click.option("--repeat", type=WholeNumber(1, 100), help=f"None: {REPEAT}, or 1 with the offline model.")
@click.option("--cap", type=Dollars(), default="1.00", show_default=True, help="Most USD that all runs cost.")
@click.option("--jobs", type=WholeNumber(1, 64), default=4, show_default=True, help="Runs at once.")
@click.option("--judge", metavar="MODEL", help="For rubrics. None: that of tier medium.")
@click.option("--offline", is_flag=True, help="Ask the offline model, whatever key there is.")
@click.option("--json", "json_file", type=FILE, help="Write results and verdicts here.")
@click.option("--junit", "junit_file", type=FILE, help="Write JUnit XML here.")
@click.option("--baseline-out", type=FILE, help="Write the results here, for --against.")
@click.option("--keep", is_flag=True, help="Keep the results in the agents' folders, if none regressed.")
def run(**given: Any) -> None:
    """Ask agents the cases of their evals.yaml; exit code 1 when one regressed or failed.

    The runs are real, of a service of their own: nothing of the running one is touched, and --cap holds. With a
    baseline, a case fails when it passes less often by more than chance: docs/evals.md has the test and its false
    alarms. Without one, when fewer than half of its repeats pass, unless the run records a baseline.
    """
    options = Options(**given)
    settings = services().settings
    if options.offline:
        settings = offline(settings)
    chosen = _chosen(options.names)
    given_baseline = _given(options, chosen)
    with without_log_lines(), open_house(settings, options.cap) as house:
        agents = [named(house.services, agent.id) for agent in chosen]
        baselines = _baselines(agents, given_baseline, house)
        report = _evaluated(house, agents, baselines, options)
    print_report(report)
    records = report.records()
    _write(options, report, records)
    recording = (options.baseline_out is not None or options.keep) and not baselines
    failed = not report.complete or (report.failed and not recording)
    if options.keep:
        _keep(agents, records, refused=failed)
    sys.exit(1 if failed else 0)


def _chosen(names: Sequence[str]) -> list[AgentDefinition]:
    """Return the agents to ask: those named, or all that have evals."""
    here = services()
    broken = dict.fromkeys(fault.agent for fault in here.agents.faults if not names or fault.agent in names)
    if broken:
        raise click.ClickException(f"Cannot be run: {', '.join(broken)}. `flask agents check` says why.")
    try:
        agents = [named(here, name) for name in dict.fromkeys(names)] or list(here.agents.agents.values())
    except click.ClickException as error:
        raise click.UsageError(error.message) from None
    for agent in agents:
        if names and not agent.evals:
            raise click.UsageError(f"{agent.id} has no evals.yaml.")
    if not (found := [agent for agent in agents if agent.evals]):
        raise click.UsageError(f"No agent in {here.settings.agents_dir} has an evals.yaml.")
    return found


def _given(options: Options, agents: Sequence[AgentDefinition]) -> Results | None:
    """Read the baseline of `--against`; None without the option."""
    if options.against is None:
        return None
    found = _read(results.read, options.against)
    known = {record.agent for record in found.records}
    if not known & {agent.id for agent in agents}:
        raise click.UsageError(
            f"{options.against} has no results of {', '.join(agent.id for agent in agents)}."
        )
    return found


def _read(read: Callable[[Path], Results], path: Path) -> Results:
    try:
        return read(path)
    except BadBaseline as error:
        raise click.UsageError(str(error)) from None


def _baselines(agents: Sequence[AgentDefinition], given: Results | None, house: House) -> dict[str, Record]:
    """Return the records to compare with, by agent: of the same kind of model only."""
    found = {}
    for agent in agents:
        kept = given if given is not None else _read(results.kept, agent.folder)
        record = kept.find(agent.id, house.model)
        if record is not None:
            found[agent.id] = record
        elif given is not None and any(one.agent == agent.id for one in kept.records):
            raise click.UsageError(f"The baseline has no results of {agent.id} with the {house.model} model.")
    return found


def _evaluated(
    house: House, agents: Sequence[AgentDefinition], baselines: dict[str, Record], options: Options
) -> Report:
    repeat = options.repeat or (1 if house.deterministic else REPEAT)
    judge = Judge(house.services.runs.start, options.judge or house.services.settings.model_medium)
    evaluation = Evaluation(agents, baselines, repeat, offline=house.model == "offline")
    meter = Meter(evaluation, house)
    asker = Asker(house, judge, options.jobs, meter.step)
    verdicts = evaluation.run(asker)
    meter.end()
    return evaluation.report(verdicts, house.model, spent=house.spent(), capped=asker.capped)


def _write(options: Options, report: Report, records: Sequence[Record]) -> None:
    try:
        if options.json_file is not None:
            content = {**results.results_json(records), "comparison": comparison(report)}
            results.write(options.json_file, content)
        if options.baseline_out is not None:
            results.write(options.baseline_out, results.results_json(records))
        if options.junit_file is not None:
            junit.write(report, options.junit_file)
    except OSError as error:
        _not_written(error)


def _keep(agents: Sequence[AgentDefinition], records: Sequence[Record], *, refused: bool) -> None:
    """Write the kept baseline of each agent, but for results that are worse than it."""
    if refused:
        click.echo(
            "Nothing is kept: mend the agent, or delete its evals.baseline.json to begin anew.", err=True
        )
        return
    folders = {agent.id: agent.folder for agent in agents}
    edited = [agent.id for agent in agents if version_of(agent.folder) != agent.version]
    if edited:
        raise click.ClickException(f"Nothing is kept: {', '.join(edited)} changed while the evals ran.")
    for record in records:
        folder = folders[record.agent]
        path, before = results.kept_file(folder), _read(results.kept, folder)
        try:
            results.write(path, results.results_json(results.replaced(before, record)))
        except OSError as error:
            _not_written(error)
        click.echo(f"Kept {os.path.relpath(path)}.")


def _not_written(error: OSError) -> NoReturn:
    raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}.")


@evals.command()
@click.option("--agent", "names", multiple=True, help="Only this agent; again for more.")
def check(names: tuple[str, ...]) -> None:
    """Find agents that changed since their evals passed against the kept baseline; exit code 1 if there are any.

    Asks nothing: for CI without a key. `flask evals run --keep` asks, compares and keeps.
    """
    agents = _chosen(names)
    lost = [agent.id for agent in services().agents.agents.values() if gate.lost(agent)]
    for name in lost:
        click.echo(f"{name}: evals.yaml is gone, and results are kept")
    try:
        stale = {agent.id: gate.stale(agent) for agent in agents}
    except BadBaseline as error:
        raise click.ClickException(str(error)) from None
    for agent in agents:
        for line in stale[agent.id]:
            click.echo(f"{agent.id}: {line}")
        if not results.kept_file(agent.folder).exists():
            click.echo(f"{agent.id}: no baseline is kept: `flask evals run --agent {agent.id} --keep`")
    changed = [name for name, lines in stale.items() if lines]
    for name in changed:
        click.echo(f"Run the evals of {name} and keep their results: `flask evals run --agent {name} --keep`")
    sys.exit(1 if changed or lost else 0)
