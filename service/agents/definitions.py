"""Agents as folders: reads `agents/<name>/` into definitions, and says what is wrong where it cannot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from service.agents.author_tools import ToolsFault, import_tools
from service.agents.checks import eval_problems, problems
from service.agents.marked_yaml import MarkedYaml, YamlFault, YamlFaults
from service.agents.spec import AgentSpec, CacheSpec, CategorySpec, EvalCase, LimitSpec, TierSpec
from service.knowledge import Knowledge, KnowledgeFault
from service.llm.routing import Bounds
from service.tools import Tool
from service.types import Effort, Tier

_FOLDER = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SPEC = TypeAdapter(AgentSpec)
_EVALS = TypeAdapter(tuple[EvalCase, ...])


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """One agent, ready to run: what its author wrote, and what that refers to."""

    id: str
    folder: Path
    version: str  # changes with any file of the folder, so caches can be keyed by it
    prompt: str
    description: str
    pattern: str
    tier: TierSpec
    models: Mapping[Tier, str]
    max_tokens: int
    effort: Effort | None
    history_tokens: int | None
    tools: Mapping[str, Tool]  # all it may call; a name that is not here is refused
    approvals: tuple[str, ...]
    limits: LimitSpec
    cache: CacheSpec
    categories: Mapping[str, CategorySpec]
    knowledge: Knowledge | None = None
    evals: tuple[EvalCase, ...] = field(default=(), repr=False)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.tier.default, self.tier.floor, self.tier.ceiling, self.tier.ask)

    def public(self, models: Sequence[str] = ()) -> dict[str, Any]:
        """The agent as `GET /v1/agents` shows it; `models` are those its tiers stand for."""
        return {
            "id": self.id,
            "description": self.description,
            "pattern": self.pattern,
            "models": list(models),
            "tools": list(self.tools),
            "approvals": list(self.approvals),
            "limits": self.limits.model_dump(),
        }


class AgentFault(NamedTuple):
    """One thing wrong with an agent's folder. `line` 0: the file or folder as such."""

    agent: str
    file: str
    line: int
    field: str
    detail: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}: {self.detail}" if self.field else f"{where}: {self.detail}"


@dataclass(frozen=True, slots=True)
class AgentCatalog:
    """The agents that can be run, by id, and what is wrong with the others."""

    agents: Mapping[str, AgentDefinition]
    faults: tuple[AgentFault, ...]


def load_agents(agents_dir: Path, *, patterns: Collection[str], builtins: Mapping[str, Tool]) -> AgentCatalog:
    """Read every folder of `agents_dir`. Never raises for what is in them: a broken folder is a fault."""
    agents: dict[str, AgentDefinition] = {}
    faults: list[AgentFault] = []
    if not agents_dir.is_dir():
        faults.append(AgentFault("", str(agents_dir), 0, "", "there is no such folder"))
    for folder in sorted(agents_dir.glob("[!._]*/")):
        try:
            agents[folder.name] = _Folder(folder, patterns, builtins).load()
        except _Broken as broken:
            faults += broken.faults
    return AgentCatalog(MappingProxyType(agents), tuple(faults))


class _Broken(Exception):
    def __init__(self, faults: Sequence[AgentFault]) -> None:
        super().__init__()
        self.faults = faults


class _Folder:
    """One agent's folder, on its way to a definition. Every method raises `_Broken`."""

    def __init__(self, folder: Path, patterns: Collection[str], builtins: Mapping[str, Tool]) -> None:
        self._folder = folder
        self._patterns = patterns
        self._builtins = builtins

    def load(self) -> AgentDefinition:
        if not _FOLDER.fullmatch(self._folder.name):
            raise self._broken("", f"a folder's name must match {_FOLDER.pattern}")
        document = self._yaml("agent.yaml")
        try:
            spec = document.read(_SPEC)
        except YamlFaults as error:
            raise self._yaml_broken("agent.yaml", error.faults) from None
        prompt, knowledge, available = self._prompt(), self._knowledge(), self._available()
        wrong = list(problems(spec, available, self._patterns, knowledge))
        if wrong:
            faults = [document.fault(path, detail) for path, detail in wrong]
            raise self._yaml_broken("agent.yaml", faults)
        given = {name: value for name, value in spec if name != "tools"}
        return AgentDefinition(
            id=self._folder.name,
            folder=self._folder,
            version=self._version(),
            prompt=prompt,
            tools=MappingProxyType({name: available[name] for name in spec.tools}),
            knowledge=knowledge,
            evals=self._evals(spec),
            **given,
        )

    def _yaml(self, file: str) -> MarkedYaml:
        text = self._text(file)
        try:
            return MarkedYaml(text)
        except YamlFaults as error:
            raise self._yaml_broken(file, error.faults) from None

    def _text(self, file: str) -> str:
        try:
            return (self._folder / file).read_text("utf-8")
        except FileNotFoundError:
            raise self._broken(file, "is missing") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self._broken(file, f"cannot be read: {type(error).__name__}") from None

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

    def _available(self) -> dict[str, Tool]:
        """Every tool the agent could list: the built-in ones and its own."""
        path = self._folder / "tools.py"
        try:
            own = import_tools(path, self._folder.name) if path.is_file() else {}
        except ToolsFault as fault:
            raise self._broken("tools.py", fault.detail, fault.line) from None
        for name, tool in own.items():
            if self._builtins.get(name, tool) is not tool:
                raise self._broken("tools.py", f"{name!r} is the name of a built-in tool")
        return {**self._builtins, **own}

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

    def _version(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder)
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
                content = path.read_bytes()
                digest.update(f"{name.as_posix()}\0{len(content)}\0".encode())
                digest.update(content)
        return digest.hexdigest()[:12]

    def _broken(self, file: str, detail: str, line: int = 0) -> _Broken:
        return _Broken([AgentFault(self._folder.name, str(self._folder / file), line, "", detail)])

    def _yaml_broken(self, file: str, faults: Sequence[YamlFault]) -> _Broken:
        where = str(self._folder / file)
        return _Broken([AgentFault(self._folder.name, where, *fault) for fault in faults])
