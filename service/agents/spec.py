"""Schema of `agent.yaml` and `evals.yaml`; `docs/agent-author.md` shows the first as a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from service.llm.routing import TIERS
from service.types import Effort, Tier

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


def _rate(text: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{0,5}/(second|minute|hour|day)", text) is None:
        raise ValueError(
            "must be a number of calls and a time, such as 60/minute: second, minute, hour or day"
        )
    return text


Rate = Annotated[str, AfterValidator(_rate)]


class Spec(BaseModel):
    """Base of everything an author writes in YAML: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TierSpec(Spec):
    """Routing of `tier: auto`: the tier it starts from, the cheapest and the dearest."""

    default: Tier = Field(default="medium", description="Where `tier: auto` starts from")
    floor: Tier = Field(default="simple", description="Cheapest tier this agent may use")
    ceiling: Tier = Field(default="complex", description="Dearest tier this agent may use")
    ask: bool = Field(
        default=True,
        description="Where length, code and figures contradict each other, `auto` asks the cheap model first",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not TIERS.index(self.floor) <= TIERS.index(self.default) <= TIERS.index(self.ceiling):
            raise ValueError("must be ordered: floor, default, ceiling")
        return self


class LimitSpec(Spec):
    rate: Rate | None = Field(
        default=None, description="Calls per user, such as `60/minute`; none: only the service's own"
    )
    steps: int = Field(default=10, ge=1, le=100, description="Most model calls in one run")
    seconds: float = Field(
        default=120, gt=0, le=3600, description="Longest run, in seconds, without waits for a person"
    )
    model_seconds: float | None = Field(
        default=None,
        ge=1,
        le=600,
        description="Longest silence of the model in one of its calls, in seconds, where shorter than `MODEL_TIMEOUT`; "
        "none: that",
    )


class CacheSpec(Spec):
    ttl_seconds: int = Field(
        default=0, ge=0, le=2_592_000, description="How long an answer is kept; 0: not at all"
    )
    shared: bool = Field(default=False, description="One user's answer may be given to another")
    stale: bool = Field(default=False, description="A run-out answer may be given while the model is down")
    near: bool = Field(
        default=True,
        description="Questions that differ in nothing that can carry meaning share an answer",
    )


class AgentSpec(Spec):
    """Fields of `agent.yaml` that an agent of any pattern has."""

    description: str = Field(min_length=1, max_length=500, description="What the agent is for, in a sentence")
    pattern: str = Field(description="`single`, `router` or `react`")
    tier: TierSpec = TierSpec()
    models: dict[Tier, str] = Field({}, description="Models of its own for some tiers: `simple: model-id`")
    max_tokens: int = Field(1024, ge=1, le=128_000, description="Most tokens of one model answer")
    effort: Effort | None = Field(default=None, description="`low` to `max`; none: the model's own")
    history_tokens: int | None = Field(
        default=None, ge=500, description="Token budget of a session's history; none: the service's setting"
    )
    tools: tuple[str, ...] = Field((), description="Tools it may call: built-in ones, and its `tools.py`")
    approvals: tuple[str, ...] = Field((), description="Those of its tools that need a person's yes")
    limits: LimitSpec = LimitSpec()
    cache: CacheSpec = CacheSpec()


class PatternOptions(Spec):
    """Fields of `agent.yaml` that only one pattern has. Each has a default: agents of other patterns leave it out."""

    @classmethod
    def of(cls, spec: AgentSpec) -> Self:
        """Pick this pattern's options from a whole `agent.yaml`."""
        return cls.model_validate({name: getattr(spec, name) for name in cls.model_fields})

    @property
    def labels(self) -> Collection[str]:
        """Categories that a question can be put in, for evals."""
        return ()

    def label_said(self, step: str, text: str) -> str | None:
        """Return the category that a step's answer names; None for a step that names none."""
        return None


def agent_schema(options: Iterable[type[PatternOptions]]) -> type[AgentSpec]:
    """Make the schema of `agent.yaml`: fields that every agent has, then the options of each pattern."""
    bases: tuple[type[Any], ...] = (*options, AgentSpec)
    return create_model("AgentYaml", __base__=bases)


class Expectation(Spec):
    """Expectations of an answer; a field left out expects nothing."""

    contains: tuple[str, ...] = Field((), description="Texts in the answer, whatever their case")
    category: str | None = Field(default=None, description="Category the question is put in")
    tools: tuple[str, ...] = Field((), description="Tools that were used")
    sources: tuple[str, ...] = Field((), description="Beginnings of the addresses of sources")


class EvalCase(Spec):
    """Entry of `evals.yaml`."""

    input: str = Field(min_length=1, description="The user's turn")
    expect: Expectation = Field(description="What must be true of the answer")
    real_model: bool = Field(
        default=False, description="Only a real model can answer it: not asked with the offline one"
    )
