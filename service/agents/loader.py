"""Reads one agent's folder, `agents/<name>/`, into a definition, or says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import TypeAdapter

from service.agents.author_tools import ToolsFault, import_tools
from service.agents.checks import Remark, eval_problems, problems, remarks
from service.agents.definitions import AgentDefinition, FolderFault
from service.agents.files import version_of
from service.agents.marked_yaml import MarkedYaml, YamlFault, YamlFaults
from service.agents.spec import AgentSpec, EvalCase
from service.knowledge import Knowledge, KnowledgeFault
from service.llm.routing import Router
from service.text.sanitise import storable
from service.tools import Tool
from service.types import Tier
from service.usage.prices import PriceTable

TRIES = 3  # at a folder that changes while it is read
_FOLDER = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SPEC = TypeAdapter(AgentSpec)
_EVALS = TypeAdapter(tuple[EvalCase, ...])


@dataclass(frozen=True, slots=True)
class Available:
    """What a folder may refer to: patterns and built-in tools by name, the service's model of each tier, prices."""

    patterns: Collection[str]
    tools: Mapping[str, Tool]
    models: Mapping[Tier, str]
    prices: PriceTable


class Loaded(NamedTuple):
    """What a folder holds. Without an agent, `faults` say why; `warnings` keep no agent from being served.

    Not `whole`: it was written to all the while, so what was read may be of several versions.
    """

    version: str
    agent: AgentDefinition | None
    faults: tuple[FolderFault, ...] = ()
    warnings: tuple[FolderFault, ...] = ()
    whole: bool = True


def load_folder(folder: Path, available: Available) -> Loaded:
    """Read one agent. Never raises for what is in its folder."""
    for _ in range(TRIES):
        version = version_of(folder)
        loaded = _loaded(folder, version, available)
        if version_of(folder) == version:
            return loaded
    return loaded._replace(whole=False)


def _loaded(folder: Path, version: str, available: Available) -> Loaded:
    try:
        return _Folder(folder, available).load(version)
    except _Broken as broken:
        return Loaded(version, None, tuple(broken.faults))


class _Broken(Exception):
    def __init__(self, faults: Sequence[FolderFault]) -> None:
        super().__init__()
        self.faults = faults


class _Folder:
    """One agent's folder, on its way to a definition. Every method raises `_Broken`."""

    def __init__(self, folder: Path, available: Available) -> None:
        self._folder = folder
        self._available = available

    def load(self, version: str) -> Loaded:
        if not _FOLDER.fullmatch(self._folder.name):
            raise self._broken("", f"a folder's name must match {_FOLDER.pattern}")
        document = self._yaml("agent.yaml")
        try:
            spec = document.read(_SPEC)
        except YamlFaults as error:
            raise self._yaml_broken("agent.yaml", error.faults) from None
        prompt, knowledge, tools = self._prompt(), self._knowledge(), self._tools()
        wrong = list(problems(spec, tools, self._available.patterns, knowledge))
        if wrong:
            faults = [document.fault(path, detail) for path, detail in wrong]
            raise self._yaml_broken("agent.yaml", faults)
        given = {name: value for name, value in spec if name not in ("tools", "models")}
        agent = AgentDefinition(
            id=self._folder.name,
            folder=self._folder,
            version=version,
            prompt=prompt,
            tools=MappingProxyType({name: tools[name] for name in spec.tools}),
            router=Router({**self._available.models, **spec.models}),
            knowledge=knowledge,
            evals=self._evals(spec),
            **given,
        )
        found = remarks(agent, spec, self._available.prices)
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
            hint = ": write there what the agent is told" if file == "prompt.md" else ""
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
        """Every tool the agent could list: the built-in ones and its own."""
        path, built_in = self._folder / "tools.py", self._available.tools
        try:
            own = import_tools(path, self._folder.name) if path.is_file() else {}
        except ToolsFault as fault:
            raise self._broken("tools.py", fault.detail, fault.line) from None
        for name, tool in own.items():
            if built_in.get(name, tool) is not tool:
                raise self._broken("tools.py", f"{name!r} is the name of a built-in tool: choose another")
        return {**built_in, **own}

    def _evals(self, spec: AgentSpec) -> tuple[EvalCase, ...]:
        if not (self._folder / "evals.yaml").exists():
            return ()
        document = self._yaml("evals.yaml")
        try:
            cases = document.read(_EVALS)
        except YamlFaults as error:
            raise self._yaml_broken("evals.yaml", error.faults) from None
        faults = [document.fault(path, detail) for path, detail in eval_problems(cases, spec)]
        if faults:
            raise self._yaml_broken("evals.yaml", faults)
        return cases

    def _warning(self, document: MarkedYaml, remark: Remark) -> FolderFault:
        fault = (
            document.fault(remark.field, remark.detail) if remark.field else YamlFault(0, "", remark.detail)
        )
        file = storable(str(self._folder / remark.file))
        return FolderFault(self._folder.name, file, *fault, severity="warning")

    def _broken(self, file: str, detail: str, line: int = 0) -> _Broken:
        where = storable(str(self._folder / file))
        return _Broken([FolderFault(storable(self._folder.name), where, line, "", detail)])

    def _yaml_broken(self, file: str, faults: Sequence[YamlFault]) -> _Broken:
        where = storable(str(self._folder / file))
        return _Broken([FolderFault(self._folder.name, where, *fault) for fault in faults])
