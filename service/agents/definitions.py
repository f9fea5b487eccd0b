"""One agent as its author defined it, and what can be wrong with its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from service.agents.marked_yaml import FieldPath
from service.agents.spec import CacheSpec, EvalCase, LimitSpec, PatternOptions, TierSpec
from service.knowledge import Knowledge
from service.llm.routing import Bounds, Router
from service.tools import Tool
from service.types import Effort


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
    router: Router  # over the service's models, and the agent's own
    max_tokens: int
    effort: Effort | None
    history_tokens: int | None
    tools: Mapping[str, Tool]  # all it may call; a name that is not here is refused
    approvals: tuple[str, ...]
    limits: LimitSpec
    cache: CacheSpec
    options: PatternOptions  # of its pattern
    knowledge: Knowledge | None = None
    evals: tuple[EvalCase, ...] = field(default=(), repr=False)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.tier.default, self.tier.floor, self.tier.ceiling, self.tier.ask)

    @property
    def models(self) -> list[str]:
        """Every model its tiers allow, cheapest first."""
        return self.router.within(self.bounds)

    def public(self) -> dict[str, Any]:
        """The agent as `GET /v1/agents` shows it."""
        return {
            "id": self.id,
            "description": self.description,
            "pattern": self.pattern,
            "version": self.version,
            "models": self.models,
            "tools": list(self.tools),
            "approvals": list(self.approvals),
            "limits": self.limits.model_dump(),
        }


Severity = Literal["error", "warning"]  # an error leaves the agent out; a warning does not


class Finding(NamedTuple):
    """One result of a check: something its author did not mean, at a field of `file`, or in it as a whole."""

    field: FieldPath
    detail: str
    severity: Severity = "error"
    file: str = "agent.yaml"


class FolderFault(NamedTuple):
    """A finding with its place in an agent's folder. `line` 0: the file or folder as such."""

    agent: str
    file: str
    line: int
    field: str
    detail: str
    severity: Severity = "error"

    def __str__(self) -> str:
        here = os.getcwd() + os.sep
        where = self.file.removeprefix(here) + (f":{self.line}" if self.line else "")
        kind = "" if self.severity == "error" else "warning: "
        return (
            f"{where}: {kind}{self.field}: {self.detail}" if self.field else f"{where}: {kind}{self.detail}"
        )
