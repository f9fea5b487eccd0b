"""Checks of an agent whose fields are valid by themselves: conflicts, and settings without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from service.agents.definitions import AgentDefinition, Finding
from service.agents.eval_spec import EvalCase
from service.agents.files import is_leftover, links_out
from service.agents.flows import flow_findings
from service.agents.marked_yaml import FieldPath
from service.agents.own_code import CODE, FILE
from service.agents.pattern import PatternModule
from service.agents.spec import AgentSpec, PatternOptions
from service.errors import PriceUnknown
from service.knowledge import Knowledge, excluded_files
from service.llm.routing import TIERS
from service.text.json_schema import JsonSchema, SchemaFault
from service.text.suggest import did_you_mean, unknown
from service.tools import Tool
from service.usage.prices import PriceTable, today


def spec_findings(
    spec: AgentSpec,
    available: Mapping[str, Tool],
    patterns: Mapping[str, PatternModule],
    knowledge: Knowledge | None,
) -> Iterator[Finding]:
    """Find dangling references in `agent.yaml` and conflicting fields, including the pattern's own checks."""
    pattern = patterns.get(spec.pattern)
    if pattern is None:
        detail = f"there is no pattern {spec.pattern!r}{unknown(spec.pattern, patterns)}"
        yield Finding(("pattern",), detail)
    yield from _tool_findings(spec, available)
    yield from _policy_findings(spec, available)
    yield from flow_findings(spec, available)
    yield from _schema_findings(spec)
    own = pattern.Options.model_fields if pattern is not None else {}
    for name, field in type(spec).model_fields.items():
        foreign = name not in AgentSpec.model_fields and name not in own
        if foreign and getattr(spec, name) != field.default:
            yield Finding((name,), f"pattern {spec.pattern} has none")
    if pattern is not None:
        yield from pattern.check(spec, pattern.Options.of(spec), knowledge)


def _tool_findings(spec: AgentSpec, available: Mapping[str, Tool]) -> Iterator[Finding]:
    for number, name in enumerate(spec.tools):
        if name not in available:
            hint = ": write tables/*.csv" if name == "query_table" else unknown(name, available)
            yield Finding(("tools", number), f"there is no tool {name!r}{hint}")
        elif name in spec.tools[:number]:
            yield Finding(("tools", number), f"{name!r} is there twice")
        elif spec.cache.ttl_seconds and available[name].changes:
            detail = f"must be 0: an answer that used {name!r} cannot be given again"
            yield Finding(("cache", "ttl_seconds"), detail)
    if "query_table" in available and "query_table" not in spec.tools:
        yield Finding((), "no tool reads these tables: list query_table under `tools`", "warning", "tables")
    for number, name in enumerate(spec.approvals):
        if name not in spec.tools:
            hint = did_you_mean(name, spec.tools)
            yield Finding(("approvals", number), f"{name!r} is not one of this agent's tools{hint}")


def _policy_findings(spec: AgentSpec, available: Mapping[str, Tool]) -> Iterator[Finding]:
    """Find policies of other tools and arguments, which would bound nothing."""
    for name, policy in spec.policies.items():
        if name not in spec.tools:
            hint = did_you_mean(name, spec.tools)
            yield Finding(("policies", name), f"{name!r} is not one of this agent's tools{hint}")
            continue
        if policy.roles is not None and spec.cache.shared:
            detail = f"must be off: not everybody may use {name!r}"
            yield Finding(("cache", "shared"), detail)
        arguments = available[name].input_schema.get("properties") if name in available else None
        for bound, argument in policy.bounded:
            if arguments is not None and argument not in arguments:
                detail = f"{name!r} has no argument {argument!r}{unknown(argument, arguments)}"
                yield Finding(("policies", name, bound, argument), detail)


def _schema_findings(spec: AgentSpec) -> Iterator[Finding]:
    if spec.output_schema is not None:
        try:
            JsonSchema(spec.output_schema)
        except SchemaFault as fault:
            yield Finding(("output_schema", *fault.path), fault.detail)


def eval_findings(cases: Sequence[EvalCase], spec: AgentSpec, options: PatternOptions) -> Iterator[Finding]:
    """Find repeated cases, invalid schemas, and categories and tools that the agent does not have."""
    asked: set[str] = set()
    for number, case in enumerate(cases):
        if case.key in asked:
            yield Finding((number,), "is there twice: `repeat` asks a case several times")
        asked.add(case.key)
        category = case.expect.category
        if category is not None and category not in options.labels:
            hint = did_you_mean(category, options.labels)
            yield Finding((number, "expect", "category"), f"there is no category {category!r}{hint}")
        for field, name in case.tools:
            if name not in spec.tools:
                hint = did_you_mean(name, spec.tools)
                yield Finding((number, *field), f"{name!r} is not one of this agent's tools{hint}")
        try:
            JsonSchema(case.expect.output_schema or {})
        except SchemaFault as fault:
            yield Finding((number, "expect", "output_schema", *fault.path), fault.detail)


def folder_warnings(agent: AgentDefinition, spec: AgentSpec, prices: PriceTable) -> Iterator[Finding]:
    """Warn of models without a price, of unread files, and of links out of the folder."""
    yield from _models_unpriced(agent, spec, prices)
    if agent.pattern != CODE and (agent.folder / FILE).exists():
        yield Finding((), f"pattern {agent.pattern} does not read it: use {CODE}", "warning", FILE)
    for path, why in excluded_files(agent.folder / "knowledge"):
        where = path.relative_to(agent.folder)
        if not any(map(is_leftover, where.parts)):
            yield Finding((), why, "warning", where.as_posix())
    for path in links_out(agent.folder):
        name = path.relative_to(agent.folder).as_posix()
        detail = "is a link out of the folder: put a copy in its place, to go where the folder goes"
        yield Finding((), detail, "warning", name)


def _models_unpriced(agent: AgentDefinition, spec: AgentSpec, prices: PriceTable) -> Iterator[Finding]:
    """Warn of models without a price: those of its tiers, and the cheap one, which classifies and summarises."""
    own = {model: tier for tier, model in spec.models.items()}
    cheap = agent.model_router.route("simple").models[0]
    for model in dict.fromkeys([cheap, *agent.models]):
        try:
            prices.price(model, today())
        except PriceUnknown:
            field: FieldPath = ("models", own[model]) if model in own else ()
            subject = (
                repr(model) if model in own else f"{model!r}, of the setting {_setting(agent, spec, model)},"
            )
            hint = did_you_mean(model, prices.models) or f"; priced are: {', '.join(prices.models)}"
            yield Finding(field, f"{subject} has no price, so its calls are refused{hint}", "warning")


def _setting(agent: AgentDefinition, spec: AgentSpec, model: str) -> str:
    """Return the name of the setting behind a model that `agent.yaml` does not name."""
    tiers = (tier for tier in TIERS if tier not in spec.models)
    return next(
        f"MODEL_{tier.upper()}" for tier in tiers if agent.model_router.route(tier).models[0] == model
    )
