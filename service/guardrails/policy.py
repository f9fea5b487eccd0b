"""Policy of the guardrails: the action on each kind of text, on the way in and on the way out. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.guardrails.patterns import Pattern, compile_pattern, compile_words

MOST_RULES, MOST_PHRASES = 50, 2_000


class Action(StrEnum):
    """Action on a match, from mild to strict.

    `redact` puts a placeholder, which tools get the true value for; `mask` removes the value for good.
    """

    ALLOW = "allow"
    REDACT = "redact"
    MASK = "mask"
    REFUSE = "refuse"


STRICTNESS = {action: rank for rank, action in enumerate(Action)}
PERSONAL = ("email", "phone", "card", "iban", "national_id", "ip", "birth_date")
KINDS = (*PERSONAL, "secret")  # kinds that are built in


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _phrase(text: str) -> str:
    compile_words(text)
    return text


PatternText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_pattern)]
Phrase = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_phrase)]


class GuardrailPart(BaseModel):
    """Base of the fields below: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleSpec(GuardrailPart):
    """Rule of one's own: words and patterns under a name."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Name in events and metrics, such as `competitors`"
    )
    action: Action = Field(description="`redact`, `mask` or `refuse`; `allow`: the rule is off")
    words: tuple[Phrase, ...] = Field(
        (), description="Words or phrases in upper or lower case; `*` at the end of a word: any ending"
    )
    patterns: tuple[PatternText, ...] = Field(
        (), description="Patterns such as `PRJ-[0-9]{6}`: characters, classes, `?`, `{n}` and `{m,n}`"
    )

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self.name in KINDS or self.name in ("text", "length", "control_characters"):
            raise ValueError(f"a rule cannot have the name of a kind that is built in: {self.name}")
        if not self.words and not self.patterns:
            raise ValueError("needs words or patterns")
        if len(self.words) + len(self.patterns) > MOST_PHRASES:
            raise ValueError(f"may have {MOST_PHRASES} words and patterns")
        return self

    def compiled(self) -> tuple[Pattern, ...]:
        return (*map(compile_words, self.words), *map(compile_pattern, self.patterns))


class SideSpec(GuardrailPart):
    """Actions on one side: on what goes in to the model, or on what comes out to the caller."""

    personal_data: Action = Field(Action.ALLOW, description="Action on all kinds of personal data below")
    email: Action | None = Field(None, description="Mail addresses")
    phone: Action | None = Field(None, description="Phone numbers")
    card: Action | None = Field(None, description="Numbers of payment cards")
    iban: Action | None = Field(None, description="Numbers of bank accounts (IBAN)")
    national_id: Action | None = Field(None, description="National identity, insurance and tax numbers")
    ip: Action | None = Field(None, description="IP addresses")
    birth_date: Action | None = Field(None, description="Dates of birth")
    secret: Action = Field(Action.ALLOW, description="Passwords, tokens and keys")
    control_characters: Action = Field(
        Action.ALLOW, description="Control and invisible formatting characters; `redact` and `mask` drop them"
    )
    max_length: int | None = Field(
        None, ge=1, le=10_000_000, description="Longest text, in characters; a longer one is refused"
    )
    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=MOST_RULES)] = Field(
        (), description="Rules of your own"
    )

    def action_of(self, kind: str) -> Action:
        """Return the action on a kind that is built in."""
        own: Action | None = getattr(self, kind)
        return self.personal_data if own is None else own

    @property
    def acts(self) -> bool:
        """Return whether anything is done to texts of this side."""
        kinds = (*(self.action_of(kind) for kind in KINDS), self.control_characters)
        others = (rule.action for rule in self.rules)
        return self.max_length is not None or any(one is not Action.ALLOW for one in (*kinds, *others))


class JudgeSpec(GuardrailPart):
    """Judge of texts: the cheap model, which is asked whether they are of a kind described in words."""

    input: Annotated[str, Field(max_length=4_000)] = Field(
        "", description="Kind of questions to refuse, in words; none: they are not judged"
    )
    output: Annotated[str, Field(max_length=4_000)] = Field(
        "", description="Kind of answers to refuse, in words; an answer is told once it is judged"
    )
    on_error: Literal["fail", "allow"] = Field(
        "fail", description="A judge without a verdict: the run fails, or the text passes"
    )


class Rail(GuardrailPart):
    """Guardrails of an agent or a workspace: field `guardrails` of `agent.yaml` and of workspaces."""

    input: SideSpec = Field(SideSpec(), description="What users ask and what tools return")
    output: SideSpec = Field(SideSpec(), description="What callers get")
    judge: JudgeSpec | None = Field(None, description="A model that judges texts by rules in words")

    @property
    def acts(self) -> bool:
        return self.input.acts or self.output.acts or self.judge is not None


OFF = Rail()


class RailsFault(ValueError):
    """Raised for JSON that is no guardrails, with the JSON pointer of the field."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer or '/'}: {detail}")
        self.pointer, self.detail = pointer, detail


def parse_rails(data: Mapping[str, Any]) -> Rail:
    """Parse the JSON of guardrails. Raises `RailsFault`."""
    try:
        return Rail.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        detail = "There is no such field" if unknown else first["msg"].removeprefix("Value error, ")
        raise RailsFault(where, detail) from None


def stricter(one: Rail, other: Rail) -> Rail:
    """Combine the guardrails of a workspace and of an agent: of each part the stricter action."""
    return Rail(
        input=_stricter_side(one.input, other.input),
        output=_stricter_side(one.output, other.output),
        judge=_both_judges(one.judge, other.judge),
    )


def _both_judges(one: JudgeSpec | None, other: JudgeSpec | None) -> JudgeSpec | None:
    """Return a judge of what either of two judges; without a verdict nothing passes unless both let it."""
    if one is None or other is None:
        return one or other
    return one.model_copy(
        update={
            "input": "; or: ".join(filter(None, (one.input, other.input))),
            "output": "; or: ".join(filter(None, (one.output, other.output))),
            "on_error": "fail" if "fail" in (one.on_error, other.on_error) else "allow",
        }
    )


def _stricter_side(one: SideSpec, other: SideSpec) -> SideSpec:
    def strictest(*actions: Action) -> Action:
        return max(actions, key=STRICTNESS.__getitem__)

    lengths = [side.max_length for side in (one, other) if side.max_length is not None]
    return SideSpec(
        **{kind: strictest(one.action_of(kind), other.action_of(kind)) for kind in KINDS},
        control_characters=strictest(one.control_characters, other.control_characters),
        max_length=min(lengths, default=None),
        rules=tuple(dict.fromkeys((*one.rules, *other.rules))),
    )
