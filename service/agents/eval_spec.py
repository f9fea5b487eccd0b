"""Schema of `evals.yaml`; `docs/agent-author.md` has its fields as a table, `docs/evals.md` how to use them."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic_core import SchemaError

from service.agents.marked_yaml import FieldPath
from service.agents.spec import Spec
from service.types import NANO

MOST_REPEATS = 100
MOST_CASES = 500  # of one agent
Text = Annotated[str, Field(min_length=1, max_length=4_000)]
Turn = Annotated[str, Field(min_length=1, max_length=20_000)]


def searcher(pattern: str) -> TypeAdapter[str]:
    """Return a validator that accepts texts in which a pattern is found, in a time linear in their length.

    Pydantic's default engine, Rust's: without look-around and back-references. Raises `SchemaError` for a bad pattern.
    """
    return TypeAdapter(Annotated[str, Field(pattern=pattern)])


def _pattern(text: str) -> str:
    try:
        searcher(text)
    except SchemaError:
        raise ValueError(
            "is no regular expression of Rust's regex, which has no look-around and no back-references"
        ) from None
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_pattern)]


class ToolCall(Spec):
    """Call that the model is to ask for."""

    tool: str = Field(description="Name of the tool")
    arguments: dict[str, Any] = Field({}, description="Arguments among those of the call, each equal")


class Citation(Spec):
    """Source that the answer is to cite."""

    source: str = Field(min_length=1, description="Prefix of the source's URI")
    quote: str | None = Field(
        default=None,
        min_length=1,
        max_length=4_000,
        description="Text in its quote; none: any quote, verbatim in its file",
    )


class Expectation(Spec):
    """Expectations on an answer; an omitted one accepts anything."""

    contains: tuple[Text, ...] = Field((), description="Texts in the answer, in upper or lower case")
    not_contains: tuple[Text, ...] = Field((), description="Texts not in the answer, in either case")
    matches: tuple[Pattern, ...] = Field(
        (),
        description="Regular expressions found in the answer, of up to 500 characters, without look-around",
    )
    category: str | None = Field(default=None, description="Category chosen for the question")
    tools: tuple[str, ...] = Field((), description="Tools that were used")
    calls: tuple[ToolCall, ...] = Field((), description="Calls that the model asked for, with arguments")
    not_called: tuple[str, ...] = Field(
        (), description="Tools that the model did not ask for, not even subject to an approval"
    )
    approvals: tuple[str, ...] = Field((), description="Tools of which a call waited for a person")
    sources: tuple[str, ...] = Field((), description="Prefixes of the URIs of sources")
    cites: tuple[Citation, ...] = Field((), description="Sources with a verbatim quote")
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the answer, which is JSON"
    )
    error: str | None = Field(
        default=None, description="Code of the error with which the run fails; none: it succeeds"
    )
    steps: int | None = Field(
        default=None, ge=1, description="Most steps of the last turn: model calls, and rounds of tool calls"
    )
    seconds: float | None = Field(
        default=None, gt=0, description="Longest duration of the last turn, in seconds"
    )
    cost_usd: Decimal | None = Field(
        default=None, gt=0, le=1_000, description="Most that all turns cost, in dollars, such as 0.01"
    )
    judge: str | None = Field(
        default=None,
        min_length=1,
        max_length=4_000,
        description="Rubric by which a model passes or fails the answer; needs a real model",
    )

    @property
    def most_nano(self) -> int | None:
        """Most that all turns may cost, in nano-dollars."""
        return None if self.cost_usd is None else int(self.cost_usd * NANO)


class Injected(Spec):
    """Text from outside, as an attacker might have placed it."""

    tool: str | None = Field(
        default=None, description="Tool that is not called: its result is the text, each time"
    )
    document: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Title of a document that comes with the last turn",
    )
    text: str = Field(min_length=1, max_length=20_000, description="The text")

    @model_validator(mode="after")
    def _placed_once(self) -> Self:
        if (self.tool is None) == (self.document is None):
            raise ValueError("needs a place: `tool` or `document`, and not both")
        return self


class EvalCase(Spec):
    """Entry of `evals.yaml`."""

    input: Turn = Field(description="The user's turn")
    turns: Annotated[tuple[Turn, ...], Field(max_length=20)] = Field(
        (), description="Turns before it, in the same session"
    )
    context: dict[str, Any] = Field({}, description="`context` of the request")
    inject: Annotated[tuple[Injected, ...], Field(max_length=20)] = Field(
        (), description="Texts placed in results of tools, or as documents"
    )
    approve: tuple[str, ...] = Field(
        (), description="Tools whose calls are approved when they wait for a person"
    )
    deny: tuple[str, ...] = Field((), description="Tools whose calls are denied when they wait for a person")
    expect: Expectation = Field(description="Expectations on the answer")
    repeat: int = Field(1, ge=1, le=MOST_REPEATS, description="Times that it is asked at least")
    real_model: bool = Field(default=False, description="Needs a real model: skipped with the offline one")

    @model_validator(mode="after")
    def _decided_once(self) -> Self:
        if both := sorted(set(self.approve) & set(self.deny)):
            raise ValueError(f"{both[0]!r} is under `approve` and under `deny`")
        return self

    @property
    def key(self) -> str:
        """Digest of what is asked and expected, by which results of the same case are compared."""
        told = self.model_dump(mode="json", exclude={"repeat"}, exclude_defaults=True)
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

    @property
    def needs_real_model(self) -> bool:
        return self.real_model or self.expect.judge is not None

    @property
    def injected_results(self) -> dict[str, str]:
        """Return the texts that stand for results, by tool."""
        return {one.tool: one.text for one in self.inject if one.tool is not None}

    @property
    def tools(self) -> list[tuple[FieldPath, str]]:
        """List the names of the agent's tools that the case mentions, each with its field."""
        expect = self.expect
        lists: list[tuple[FieldPath, tuple[str, ...]]] = [
            (("expect", "tools"), expect.tools),
            (("expect", "not_called"), expect.not_called),
            (("expect", "approvals"), expect.approvals),
            (("approve",), self.approve),
            (("deny",), self.deny),
        ]
        named: list[tuple[FieldPath, str]] = [
            ((*field, at), name) for field, names in lists for at, name in enumerate(names)
        ]
        named += [(("expect", "calls", at, "tool"), call.tool) for at, call in enumerate(expect.calls)]
        placed = ((at, one.tool) for at, one in enumerate(self.inject))
        return named + [(("inject", at, "tool"), tool) for at, tool in placed if tool is not None]
