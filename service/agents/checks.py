"""What is wrong with an agent although each field alone is well formed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from service.agents.spec import AgentSpec, EvalCase
from service.knowledge import Knowledge
from service.tools import Tool

Problem = tuple[tuple[str | int, ...], str]  # the path of a field, and what is wrong with it


def problems(
    spec: AgentSpec, available: Mapping[str, Tool], patterns: Collection[str], knowledge: Knowledge | None
) -> Iterator[Problem]:
    """What the fields of `agent.yaml` refer to and is not there, and what does not go together."""
    if spec.pattern not in patterns:
        yield ("pattern",), f"there is no pattern {spec.pattern!r}; there are: {', '.join(sorted(patterns))}"
    yield from _tool_problems(spec, available)
    if spec.pattern == "router":
        if len(spec.categories) < 2:
            yield ("categories",), "pattern router needs at least two"
        for name in spec.categories:
            if knowledge is None or name not in knowledge.categories:
                yield ("categories", name), f"has no documents in knowledge/{name}/"
    elif spec.categories:
        yield ("categories",), f"pattern {spec.pattern} has none"


def _tool_problems(spec: AgentSpec, available: Mapping[str, Tool]) -> Iterator[Problem]:
    for number, name in enumerate(spec.tools):
        if name not in available:
            yield ("tools", number), f"there is no tool {name!r}; there are: {', '.join(sorted(available))}"
        elif name in spec.tools[:number]:
            yield ("tools", number), f"{name!r} is there twice"
        elif spec.cache.ttl_seconds and available[name].side_effects:
            yield ("cache", "ttl_seconds"), f"must be 0: an answer that used {name!r} cannot be given again"
    for number, name in enumerate(spec.approvals):
        if name not in spec.tools:
            yield ("approvals", number), f"{name!r} is not one of this agent's tools"


def eval_problems(cases: Sequence[EvalCase], spec: AgentSpec) -> Iterator[Problem]:
    """What the evals expect that this agent does not have."""
    for number, case in enumerate(cases):
        if case.expect.category is not None and case.expect.category not in spec.categories:
            yield (number, "expect", "category"), f"there is no category {case.expect.category!r}"
        for at, name in enumerate(case.expect.tools):
            if name not in spec.tools:
                yield (number, "expect", "tools", at), f"{name!r} is not one of this agent's tools"
