"""Loader: parse one agent's folder, `agents/<name>/`, into a definition, or report its faults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import TypeAdapter

from service.agents.checks import eval_findings, folder_warnings, spec_findings
from service.agents.definitions import AgentDefinition, Finding, FolderFault
from service.agents.elsewhere import elsewhere, not_allowed
from service.agents.eval_spec import EvalCase
from service.agents.files import version_of
from service.agents.marked_yaml import MarkedYaml, YamlFault, YamlFaults
from service.agents.own_code import CODE, Program, load_program
from service.agents.pattern import PatternModule
from service.agents.spec import AgentSpec, PatternOptions, agent_schema
from service.knowledge import Knowledge, KnowledgeFault
from service.llm.routing import ModelRouter
from service.text.sanitise import storable
from service.tools import Tool
from service.tools.sources.base import SourceFault, ToolSource, tools_of
from service.types import Tier
from service.usage.prices import PriceTable

TRIES = 3  # attempts at a folder that changes during the read
FOLDER = re.compile(r"[a-z][a-z0-9_-]{0,63}")
NAME_RULE = "small letters, digits, - and _, begins with a letter, and is at most 64 characters long"
_RESOLVED = ("tools", "models")  # spec fields that the definition holds in resolved form
_EVALS = TypeAdapter(tuple[EvalCase, ...])


@dataclass(frozen=True)
class Available:
    """References a folder may make: patterns by name, tool sources, the service's model of each tier, prices.

    `addresses`: of agents that run elsewhere, by name. `hosts`: of remote agents that may be asked; None: any.
    """

    patterns: Mapping[str, PatternModule]
    sources: Sequence[ToolSource]
    models: Mapping[Tier, str]
    prices: PriceTable
    addresses: Mapping[str, str] = field(default_factory=dict)
    hosts: Set[str] | None = None

    @cached_property
    def schema(self) -> TypeAdapter[AgentSpec]:
        """Schema of `agent.yaml`, including the options of every pattern."""
        return TypeAdapter(agent_schema(pattern.Options for pattern in self.patterns.values()))


class Loaded(NamedTuple):
    """Result of loading a folder. Without an agent, `faults` say why; `warnings` do not prevent serving.

    `whole` is False if the folder changed during every try, so the result may mix versions.
    """

    version: str
    agent: AgentDefinition | None
    faults: tuple[FolderFault, ...] = ()
    warnings: tuple[FolderFault, ...] = ()
    whole: bool = True


def load_folder(folder: Path, available: Available) -> Loaded:
    """Load one agent, in up to `TRIES` tries. Never raises for the folder's content."""
    for _ in range(TRIES):
        version = version_of(folder)
        try:
            loaded = _Folder(folder, available).load(version)
        except _Broken as broken:
            loaded = Loaded(version, None, tuple(broken.faults))
        if version_of(folder) == version:
            return loaded
    return loaded._replace(whole=False)


class _Broken(Exception):
    def __init__(self, faults: Sequence[FolderFault]) -> None:
        super().__init__()
        self.faults = faults


class _Folder:
    """Folder being parsed into a definition. Every method raises `_Broken`."""

    def __init__(self, folder: Path, available: Available) -> None:
        self._folder = folder
        self._available = available

    def load(self, version: str) -> Loaded:
        if not FOLDER.fullmatch(self._folder.name):
            raise self._broken("", f"a folder's name has only {NAME_RULE}")
        document = self._yaml("agent.yaml")
        try:
            spec = document.read(self._available.schema)
        except YamlFaults as error:
            raise self._yaml_broken("agent.yaml", error.faults) from None
        prompt, knowledge, tools = self._prompt(), self._knowledge(), self._tools()
        found = list(spec_findings(spec, tools, self._available.patterns, knowledge))
        errors = [document.fault(one.field, one.detail) for one in found if one.severity == "error"]
        if errors:
            raise self._yaml_broken("agent.yaml", errors)
        options = self._available.patterns[spec.pattern].Options.of(spec)
        given = {name: getattr(spec, name) for name in AgentSpec.model_fields if name not in _RESOLVED}
        agent = AgentDefinition(
            id=self._folder.name,
            folder=self._folder,
            version=version,
            prompt=prompt,
            tools=MappingProxyType({name: tools[name] for name in spec.tools}),
            model_router=ModelRouter({**self._available.models, **spec.models}),
            options=options,
            knowledge=knowledge,
            evals=self._evals(spec, options),
            program=self._program(spec),
            **given,
        )
        found += folder_warnings(agent, spec, self._available.prices)
        if agent.id in self._available.addresses:
            agent = elsewhere(agent, self._available.addresses[agent.id], self._available.patterns)
        if self._available.hosts is not None:
            found += not_allowed(agent, self._available.hosts)
        return Loaded(version, agent, warnings=tuple(self._warning(document, one) for one in found))

    def _yaml(self, file: str) -> MarkedYaml:
        text = self._text(file)
        try:
            return MarkedYaml(text)
        except YamlFaults as error:
            raise self._yaml_broken(file, error.faults) from None

    def _text(self, file: str) -> str:
        try:
            return (self._folder / file).read_text("utf-8-sig")
        except FileNotFoundError:
            hint = ": write the agent's instructions there" if file == "prompt.md" else ""
            raise self._broken(file, f"is missing{hint}") from None
        except UnicodeDecodeError:
            raise self._broken(file, "is not UTF-8: save it in that encoding") from None
        except OSError as error:
            raise self._broken(file, f"cannot be read: {error.strerror}") from None

    def _prompt(self) -> str:
        prompt = self._text("prompt.md").strip()
        if not prompt:
            raise self._broken("prompt.md", "is empty")
        return prompt

    def _knowledge(self) -> Knowledge | None:
        folder = self._folder / "knowledge"
        if not folder.is_dir():
            return None
        try:
            return Knowledge.load(folder)
        except KnowledgeFault as fault:
            raise self._broken(fault.path.relative_to(self._folder).as_posix(), str(fault)) from None

    def _tools(self) -> dict[str, Tool]:
        try:
            return tools_of(self._available.sources, self._folder)
        except SourceFault as fault:
            raise self._broken(fault.file, fault.detail, fault.line) from None

    def _program(self, spec: AgentSpec) -> Program | None:
        if spec.pattern != CODE:
            return None
        try:
            return load_program(self._folder)
        except SourceFault as fault:
            raise self._broken(fault.file, fault.detail, fault.line) from None

    def _evals(self, spec: AgentSpec, options: PatternOptions) -> tuple[EvalCase, ...]:
        if not (self._folder / "evals.yaml").exists():
            return ()
        document = self._yaml("evals.yaml")
        try:
            cases = document.read(_EVALS)
        except YamlFaults as error:
            raise self._yaml_broken("evals.yaml", error.faults) from None
        found = eval_findings(cases, spec, options)
        faults = [document.fault(one.field, one.detail) for one in found]
        if faults:
            raise self._yaml_broken("evals.yaml", faults)
        return cases

    def _warning(self, document: MarkedYaml, found: Finding) -> FolderFault:
        fault = document.fault(found.field, found.detail) if found.field else YamlFault(0, "", found.detail)
        file = storable(str(self._folder / found.file))
        return FolderFault(self._folder.name, file, *fault, severity=found.severity)

    def _broken(self, file: str, detail: str, line: int = 0) -> _Broken:
        return self._yaml_broken(file, [YamlFault(line, "", detail)])

    def _yaml_broken(self, file: str, faults: Sequence[YamlFault]) -> _Broken:
        where = storable(str(self._folder / file))
        return _Broken([FolderFault(storable(self._folder.name), where, *fault) for fault in faults])
