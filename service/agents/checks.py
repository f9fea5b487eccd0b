"""What is wrong with an agent although each field alone is well formed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from service.agents.definitions import AgentDefinition
from service.agents.files import is_leftover, links_out
from service.agents.spec import AgentSpec, EvalCase
from service.agents.suggest import did_you_mean, unknown
from service.errors import PriceUnknown
from service.knowledge import Knowledge, unread
from service.llm.routing import TIERS
from service.tools import Tool
from service.tools.builtin import search_knowledge
from service.usage.prices import PriceTable, today

FieldPath = tuple[str | int, ...]
Finding = tuple[FieldPath, str]  # the path of a field, and what is wrong with it


class Remark(NamedTuple):
    """Something that keeps no agent from being served, and that its author did not mean. `field` is in agent.yaml."""

    file: str
    field: FieldPath
    detail: str


def problems(
    spec: AgentSpec, available: Mapping[str, Tool], patterns: Collection[str], knowledge: Knowledge | None
) -> Iterator[Finding]:
    """What the fields of `agent.yaml` refer to and is not there, and what does not go together."""
    if spec.pattern not in patterns:
        yield ("pattern",), f"there is no pattern {spec.pattern!r}{unknown(spec.pattern, patterns)}"
    yield from _tool_problems(spec, available)
    if spec.pattern == "router":
        if spec.limits.steps < 2:
            yield ("limits", "steps"), "pattern router needs at least 2: it classifies, then answers"
        if len(spec.categories) < 2:
            yield ("categories",), "pattern router needs at least two"
        for name in spec.categories:
            if knowledge is None or name not in knowledge.categories:
                yield ("categories", name), f"has no documents in knowledge/{name}/"
    elif spec.categories:
        yield ("categories",), f"pattern {spec.pattern} has none"


def _tool_problems(spec: AgentSpec, available: Mapping[str, Tool]) -> Iterator[Finding]:
    for number, name in enumerate(spec.tools):
        if name not in available:
            yield ("tools", number), f"there is no tool {name!r}{unknown(name, available)}"
        elif name in spec.tools[:number]:
            yield ("tools", number), f"{name!r} is there twice"
        elif spec.cache.ttl_seconds and available[name].side_effects:
            yield ("cache", "ttl_seconds"), f"must be 0: an answer that used {name!r} cannot be given again"
    for number, name in enumerate(spec.approvals):
        if name not in spec.tools:
            hint = did_you_mean(name, spec.tools)
            yield ("approvals", number), f"{name!r} is not one of this agent's tools{hint}"


def eval_problems(cases: Sequence[EvalCase], spec: AgentSpec) -> Iterator[Finding]:
    """What the evals expect that this agent does not have."""
    for number, case in enumerate(cases):
        category = case.expect.category
        if category is not None and category not in spec.categories:
            hint = did_you_mean(category, spec.categories)
            yield (number, "expect", "category"), f"there is no category {category!r}{hint}"
        for at, name in enumerate(case.expect.tools):
            if name not in spec.tools:
                hint = did_you_mean(name, spec.tools)
                yield (number, "expect", "tools", at), f"{name!r} is not one of this agent's tools{hint}"


def remarks(agent: AgentDefinition, spec: AgentSpec, prices: PriceTable) -> Iterator[Remark]:
    """What is written in the folder and has no effect, or not the one that was meant."""
    yield from _tools_unused(spec)
    yield from _models_unpriced(agent, spec, prices)
    yield from _documents_unused(agent, spec)
    for path in links_out(agent.folder):
        name = path.relative_to(agent.folder).as_posix()
        yield Remark(
            name, (), "is a link out of the folder: put a copy in its place, to go where the folder goes"
        )


def _tools_unused(spec: AgentSpec) -> Iterator[Remark]:
    if spec.tools and spec.pattern != "react":
        detail = f"pattern {spec.pattern} calls no tools: use react, or leave them out"
        yield Remark("agent.yaml", ("tools",), detail)
    elif spec.pattern == "react" and not spec.tools:
        yield Remark(
            "agent.yaml", ("pattern",), "react without tools: list some under `tools`, or use single"
        )


def _models_unpriced(agent: AgentDefinition, spec: AgentSpec, prices: PriceTable) -> Iterator[Remark]:
    """Of those that its tiers allow, and the cheap one, which also classifies and summarises."""
    own = {model: tier for tier, model in spec.models.items()}
    cheap = agent.router.route("simple").models[0]
    for model in dict.fromkeys([cheap, *agent.models]):
        try:
            prices.price(model, today())
        except PriceUnknown:
            field: FieldPath = ("models", own[model]) if model in own else ()
            which = (
                repr(model) if model in own else f"{model!r}, of the setting {_setting(agent, spec, model)},"
            )
            hint = did_you_mean(model, prices.models) or f"; priced are: {', '.join(prices.models)}"
            yield Remark("agent.yaml", field, f"{which} has no price, so its calls are refused{hint}")


def _setting(agent: AgentDefinition, spec: AgentSpec, model: str) -> str:
    """Where a model comes from that `agent.yaml` does not name."""
    tiers = (tier for tier in TIERS if tier not in spec.models)
    return next(f"MODEL_{tier.upper()}" for tier in tiers if agent.router.route(tier).models[0] == model)


def _documents_unused(agent: AgentDefinition, spec: AgentSpec) -> Iterator[Remark]:
    folder = agent.folder / "knowledge"
    for path, why in unread(folder):
        where = path.relative_to(agent.folder)
        if not any(map(is_leftover, where.parts)):
            yield Remark(where.as_posix(), (), why)
    if agent.knowledge is None or not agent.knowledge.passages:
        if spec.pattern == "react" and search_knowledge.name in spec.tools:
            at = ("tools", spec.tools.index(search_knowledge.name))
            yield Remark(
                "agent.yaml", at, f"{search_knowledge.name} has nothing to search: write knowledge/*.md"
            )
        return
    if spec.pattern == "router":
        rooms = " or ".join(f"knowledge/{name}/" for name in spec.categories)
        for file in dict.fromkeys(
            passage.uri.partition("#")[0]
            for passage in agent.knowledge.passages
            if passage.category not in spec.categories
        ):
            yield Remark(file, (), f"is in no category, so no question finds it: move it to {rooms}")
    elif spec.pattern == "single":
        detail = (
            f"pattern single reads no documents: use router, or react with the tool {search_knowledge.name}"
        )
        yield Remark("knowledge", (), detail)
    elif not set(spec.tools) - {"calculator"}:  # tools of its own may search them too
        yield Remark(
            "knowledge", (), f"no tool reads these documents: list {search_knowledge.name} under `tools`"
        )
