"""Agent definition, and findings about its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic_core import ErrorDetails

from service.agents.eval_spec import EvalCase
from service.agents.marked_yaml import FieldPath
from service.agents.own_code import Program
from service.agents.spec import CacheSpec, LimitSpec, PatternOptions, TierSpec
from service.guardrails.policy import OFF, Rail
from service.knowledge import Knowledge
from service.llm.routing import Bounds, ModelRouter
from service.tools import Tool
from service.tools.bounds import ToolPolicy
from service.types import Effort, OnCap

MODEL_ITSELF = "model"  # version of a model that is asked as it is: no hash of a folder


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """Agent ready to run: its author's settings with all references resolved."""

    id: str
    folder: Path
    version: str  # hash of the folder's files, usable as a cache key
    prompt: str
    description: str
    pattern: str
    tier: TierSpec
    model_router: ModelRouter  # over the service's models, overridden by the agent's own
    max_tokens: int
    effort: Effort | None
    history_tokens: int | None
    context_tokens: int | None
    tools: Mapping[str, Tool]  # callable tools; any other name is refused
    approvals: tuple[str, ...]
    flows: Mapping[str, tuple[str, ...]]  # sources of untrusted text that a tool may follow
    links: tuple[str, ...]  # patterns of hosts that answers may link to
    limits: LimitSpec
    cache: CacheSpec
    options: PatternOptions  # fields of the agent's pattern
    policies: Mapping[str, ToolPolicy] = field(default_factory=dict)  # of some tools, by name
    examples: tuple[str, ...] = ()
    guardrails: Rail = OFF
    on_cap: OnCap = "fail"  # unless a request says otherwise
    output_schema: dict[str, Any] | None = None  # of the answers, unless a request brings its own
    knowledge: Knowledge | None = None
    evals: tuple[EvalCase, ...] = field(default=(), repr=False)
    program: Program | None = None  # its `agent.py`, for pattern `code`

    @property
    def is_model(self) -> bool:
        """Return whether it is a model of the price table that is asked as it is."""
        return self.version == MODEL_ITSELF

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.tier.default, self.tier.floor, self.tier.ceiling, self.tier.ask)

    @property
    def models(self) -> list[str]:
        """Models that the agent's tiers allow, cheapest first."""
        return self.model_router.within(self.bounds)

    @property
    def dangers(self) -> list[str]:
        """Names of tools whose calls always need a person's approval."""
        return [name for name, tool in self.tools.items() if tool.risk == "danger"]

    def beyond(self, tool: str, arguments: Mapping[str, Any]) -> list[ErrorDetails]:
        """List places in the arguments of a tool that are beyond its policy."""
        policy = self.policies.get(tool)
        return [] if policy is None else policy.faults(arguments)

    def public(self) -> dict[str, Any]:
        """Return the agent as `GET /v1/agents` shows it."""
        return {
            "id": self.id,
            "description": self.description,
            "pattern": self.pattern,
            "version": self.version,
            "models": self.models,
            "tools": list(self.tools),
            "approvals": [*self.approvals, *(name for name in self.dangers if name not in self.approvals)],
            "limits": self.limits.model_dump(),
            "examples": list(self.examples),
            "output_schema": self.output_schema,
        }


Severity = Literal["error", "warning"]  # an error excludes the agent; a warning does not


class Finding(NamedTuple):
    """Result of a check: an unintended setting, at a field of `file` or in the file as a whole."""

    field: FieldPath
    detail: str
    severity: Severity = "error"
    file: str = "agent.yaml"


class FolderFault(NamedTuple):
    """Finding with its place in an agent's folder. `line` 0: the file or folder itself."""

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
