"""Schema of `agent.yaml`; `docs/agent-author.md` has its fields as a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from service.guardrails.hosts import PATTERN as HOST_PATTERN
from service.guardrails.policy import OFF, Rail
from service.llm.routing import TIERS
from service.tools.bounds import ToolPolicy
from service.types import Effort, OnCap, Tier

MOST_TOKENS = 128_000  # of one model answer
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


def _rate(text: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{0,5}/(second|minute|hour|day)", text) is None:
        raise ValueError(
            "must be a number of calls and a time, such as 60/minute: second, minute, hour or day"
        )
    return text


def _host(text: str) -> str:
    if re.match(HOST_PATTERN, text) is None:
        raise ValueError("must be a host without scheme and path, such as example.org or *.example.org")
    return text


Rate = Annotated[str, AfterValidator(_rate)]
HostPattern = Annotated[str, Field(max_length=253), AfterValidator(_host)]
Example = Annotated[str, Field(min_length=1, max_length=500)]


class Spec(BaseModel):
    """Base of everything an author writes in YAML: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TierSpec(Spec):
    """Tiers of an agent: start of `tier: auto`, cheapest and dearest."""

    default: Tier = Field(default="medium", description="Tier from which `tier: auto` starts")
    floor: Tier = Field(default="simple", description="Cheapest tier this agent may use")
    ceiling: Tier = Field(default="complex", description="Dearest tier this agent may use")
    ask: bool = Field(
        default=True,
        description="If length, code and figures disagree, `auto` asks the cheap model to rate the question",
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
    # 250: long research ends within 200 steps; beyond that a loop is likelier than an answer.
    steps: int = Field(default=10, ge=1, le=250, description="Most model calls in one run")
    seconds: float = Field(
        default=120, gt=0, le=3600, description="Longest run, in seconds, without waits for a person"
    )
    model_seconds: float | None = Field(
        default=None,
        ge=1,
        le=600,
        description="Longest silence of the model in one call, in seconds; by default and at most `MODEL_TIMEOUT`",
    )


class CacheSpec(Spec):
    ttl_seconds: int = Field(
        default=0, ge=0, le=2_592_000, description="Seconds an answer is cached; 0: not at all"
    )
    shared: bool = Field(
        default=False, description="One user's answer may be given to another of the same workspace"
    )
    stale: bool = Field(default=False, description="An expired answer may be given while the model is down")
    near: bool = Field(
        default=True,
        description="Questions that differ only in case, spacing, marks or courtesies share an answer",
    )


class AgentSpec(Spec):
    """Fields of `agent.yaml` that an agent of any pattern has."""

    description: str = Field(
        min_length=1, max_length=500, description="Purpose of the agent, in one sentence"
    )
    pattern: str = Field(
        description="`single`, `router`, `react`, `reflection`, `research`, `orchestrator`, `remote` or `code`"
    )
    tier: TierSpec = TierSpec()
    models: dict[Tier, str] = Field({}, description="Models of its own for some tiers: `simple: model-id`")
    max_tokens: int = Field(1024, ge=1, le=MOST_TOKENS, description="Most tokens of one model answer")
    effort: Effort | None = Field(default=None, description="`low` to `max`; none: the model's own")
    history_tokens: int | None = Field(
        default=None, ge=500, description="Token budget of a session's history; none: the service's setting"
    )
    context_tokens: int | None = Field(
        default=None,
        ge=4_000,
        le=1_000_000,
        description="Most tokens of a prompt with its answer; beyond it notes replace older tool calls; none: 200,000",
    )
    tools: tuple[str, ...] = Field((), description="Tools the agent may call, built in or of its `tools.py`")
    approvals: tuple[str, ...] = Field((), description="Tools whose calls need a person's approval")
    policies: dict[str, ToolPolicy] = Field({}, description="Bounds of some tools, by name")
    flows: dict[str, tuple[str, ...]] = Field(
        {}, description="Sources of untrusted text that a tool may follow without a person: `tool: [source]`"
    )
    links: tuple[HostPattern, ...] = Field(
        (), description="Hosts that answers may link to: `example.org`, or `*.example.org` for its subdomains"
    )
    guardrails: Rail = Field(
        OFF, description="What is done to personal data, secrets and words: [guardrails](guardrails.md)"
    )
    on_cap: OnCap = Field(
        "fail", description="A run that meets a spending cap: `fail`, or `pause` until the cap has room again"
    )
    limits: LimitSpec = LimitSpec()
    cache: CacheSpec = CacheSpec()
    examples: Annotated[tuple[Example, ...], Field(max_length=10)] = Field(
        (), description="A few questions to try, for clients; at most 10, of up to 500 characters"
    )
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the answer, which is then JSON; a request's own replaces it"
    )


class Extent(NamedTuple):
    """Most that a run's model calls take, by its pattern.

    `calls` that count as steps, each of `tokens` at most; `added`: characters that a prompt has besides the agent's
    prompt, the conversation and earlier answers, None: as many as the context window takes. `nano`: nano-dollars of
    sub-agents. `free`: prompts, limits and models are chosen by code that is not ours.
    """

    calls: int
    tokens: int
    added: int | None = None
    nano: int = 0
    free: bool = False


class PatternOptions(Spec):
    """Fields of `agent.yaml` that only one pattern has. Each has a default, for agents of other patterns."""

    @classmethod
    def of(cls, spec: AgentSpec) -> Self:
        """Pick this pattern's options from a whole `agent.yaml`."""
        return cls.model_validate({name: getattr(spec, name) for name in cls.model_fields})

    @property
    def labels(self) -> Collection[str]:
        """Categories that a question can be put in, for evals."""
        return ()

    @property
    def sub_agents(self) -> Collection[str]:
        """Agents of the catalog that its runs may call."""
        return ()

    def most_steps_of(self, steps: Mapping[str, int]) -> int:
        """Return the most model calls of a run with sub-agents; `steps`: the most of each of these."""
        return 0

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        """Return the most that a run with so many `steps` takes.

        `tokens`: the most of an answer, as the caller or the agent limits it; `own`: the agent's limit.
        """
        return Extent(steps, max(tokens, own))

    def parse_label(self, step: str, text: str) -> str | None:
        """Return the category that a step's answer names; None for a step that names none."""
        return None


def agent_schema(options: Iterable[type[PatternOptions]]) -> type[AgentSpec]:
    """Make the schema of `agent.yaml`: fields that every agent has, then the options of each pattern."""
    bases: tuple[type[Any], ...] = (*options, AgentSpec)
    return create_model("AgentYaml", __base__=bases)
