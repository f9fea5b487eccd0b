"""Tool definition, and the decorator `@tool`, which makes one from a typed function."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

log = logging.getLogger(__name__)
DEFAULT_TIMEOUT = 30.0
_NAME = re.compile(r"(?!.*__)[a-zA-Z0-9_-]{1,64}")  # of the Messages API, where `__` is a dot of ours
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
_ARG = re.compile(r"^\s+(\w+):\s*(.+)$")

Source = dict[str, str]  # {"title", "uri", "quote"}
Risk = Literal[
    "read", "write", "danger"
]  # effect of a call: none, a change, or one that a person must always approve


class BadTool(TypeError):
    """Raised for a function that cannot be a tool. The message is for its author."""


class BadResult(Exception):
    """Raised when a tool returned another type than it declares. The message names types of faults, and no values."""


class ToolFailed(Exception):
    """Raised by a tool to tell the model what went wrong. The message is shown to the model and in events."""


class FoundPassage(Protocol):
    """Passage of an agent's knowledge, as a search returns it."""

    @property
    def title(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def source(self) -> Source: ...


class KnowledgeSearch(Protocol):
    """Search interface of an agent's knowledge, for tools."""

    @property
    def categories(self) -> frozenset[str]: ...
    @property
    def found_untrusted(self) -> bool: ...

    def search(self, query: str, category: str | None = None, limit: int = 4) -> Sequence[FoundPassage]: ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Call and run that a tool works for. `deadline` is in `time.monotonic()` seconds."""

    run_id: str
    user_id: str
    agent: str
    call_id: str
    deadline: float
    knowledge: KnowledgeSearch | None = None

    @property
    def idempotency_key(self) -> str:
        """Key shared by all attempts at this call; pass it to any system that must not act twice."""
        return f"{self.run_id}:{self.call_id}"


class ToolOutput(NamedTuple):
    """Return value of a tool that also names its sources."""

    content: Any
    sources: Sequence[Source] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """Function a model may call. `run` raises `ToolFailed` for wrong arguments and `BadResult` for a wrong result.

    `idempotent`: a call that may have happened can be repeated. An answer that used a tool whose `risk` is not `read`
    is never cached. `timeout` is in seconds. `trusted`: its results hold no text from outside. `sends`: its arguments
    leave the service, so that a call that only reads can carry data out. `local`: it reads nothing but its arguments
    and the agent's folder. `faults` validates arguments without a call; its messages never repeat them, and it never
    raises.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    run: Callable[[Mapping[str, Any], ToolContext], Any]
    idempotent: bool = False
    risk: Risk = "write"
    timeout: float = DEFAULT_TIMEOUT
    trusted: bool = False
    sends: bool = False
    local: bool = False
    faults: Callable[[Mapping[str, Any]], list[ErrorDetails]] = lambda arguments: []

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadTool(f"tool name {self.name!r} does not match {_NAME.pattern}")
        if not self.description:
            raise BadTool(f"tool {self.name!r} needs a docstring: it tells the model when to use it")
        if self.timeout <= 0:
            raise BadTool(f"tool {self.name!r}: timeout must be above 0 seconds")
        if self.risk not in get_args(Risk):
            raise BadTool(f"tool {self.name!r}: risk must be one of {', '.join(get_args(Risk))}")

    @property
    def changes(self) -> bool:
        """Return whether a call changes something."""
        return self.risk != "read"

    @property
    def acts(self) -> bool:
        """Return whether a call has an effect outside the run: it changes something, or carries its arguments out."""
        return self.changes or self.sends

    def for_model(self) -> dict[str, Any]:
        """Return the tool as the Messages API takes it."""
        return {"name": self.name, "description": self.description, "input_schema": dict(self.input_schema)}


def tool(  # noqa: PLR0913 - each is a keyword of its own for authors
    bare: object = None,
    /,
    *,
    name: str | None = None,
    idempotent: bool = False,
    risk: Risk = "write",
    timeout: float = DEFAULT_TIMEOUT,
    trusted: bool = False,
    sends: bool = False,
) -> Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` from a function: the model sees its name, its docstring and its typed parameters.

    A parameter annotated `ToolContext` is filled in and hidden from the model. The defaults are conservative: a tool is
    assumed to change something and not to be idempotent. Raises `BadTool` for a function that cannot be a tool.
    """
    if bare is not None:
        raise BadTool("write @tool() with parentheses")

    def make(function: Callable[..., Any]) -> Tool:
        label: str = name or function.__name__
        description, about = _docstring(function)
        fields, context_name = _parameters(function, label, about)
        arguments_model = _arguments_model(label, fields)
        check_result = _result_check(function, label)

        def run(arguments: Mapping[str, Any], context: ToolContext) -> Any:
            given = _validated(arguments_model, arguments)
            if context_name is not None:
                given[context_name] = context
            returned = function(**given)
            check_result(returned)
            return returned

        return Tool(
            name=label,
            description=description,
            input_schema=_schema(arguments_model),
            run=run,
            idempotent=idempotent,
            risk=risk,
            timeout=timeout,
            trusted=trusted,
            sends=sends,
            faults=partial(_faults, arguments_model),
        )

    return make


def _result_check(function: Callable[..., Any], label: str) -> Callable[[Any], None]:
    """Make a check of results against the return annotation, which raises `BadResult`. Raises `BadTool`.

    Strict, as a type checker is: "5" is no int. Without an annotation any result is right.
    """
    declared = get_type_hints(function, include_extras=True).get("return", Any)
    try:
        adapter = TypeAdapter(declared)
    except PydanticUserError:
        raise BadTool(
            f"tool {label!r}: its return type cannot go as JSON: use str, int, float, bool, list, dict, "
            "a pydantic model or ToolOutput"
        ) from None

    def check(returned: Any) -> None:
        try:
            adapter.validate_python(returned, strict=True)
        except ValidationError as error:
            kinds = dict.fromkeys(one["type"] for one in _details(error))
            raise BadResult(", ".join(kinds)) from None

    return check


def _arguments_model(label: str, fields: dict[str, Any]) -> type[BaseModel]:
    """Create the arguments model. Raises `BadTool` naming a parameter whose type has no JSON Schema."""
    for parameter, field in fields.items():
        try:
            _schema(create_model("one", __config__=_CONFIG, **{parameter: field}))
        except PydanticUserError:
            raise BadTool(
                f"tool {label!r}: parameter {parameter!r} has a type that cannot come as JSON: "
                "use str, int, float, bool, list, dict, Literal or a pydantic model"
            ) from None
    model: type[BaseModel] = create_model(f"{label}_arguments", __config__=_CONFIG, **fields)
    return model


def _validated(model: type[BaseModel], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Validate arguments into the function's own types. Raises `ToolFailed`, without repeating the model's input."""
    try:
        checked = model.model_validate(dict(arguments))
    except ValidationError as error:
        raise ToolFailed(f"Invalid arguments. {listed(_details(error))}") from None
    return {field: getattr(checked, field) for field in type(checked).model_fields}


def _faults(model: type[BaseModel], arguments: Mapping[str, Any]) -> list[ErrorDetails]:
    """See `Tool.faults`. Uses the same model as the call, so both refuse the same arguments."""
    try:
        model.model_validate(dict(arguments))
    except ValidationError as error:
        return _details(error)
    except Exception as error:  # raised by the author's own validator
        log.warning("tool_check_failed", extra={"error": type(error).__name__})
        return [{"type": "check_failed", "loc": (), "msg": "could not be checked", "input": None}]
    return []


def listed(faults: Sequence[ErrorDetails]) -> str:
    """Format faults of arguments as one text for the model."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {_words(one)}" for one in faults)


def _words(fault: ErrorDetails) -> str:
    return "There is no such argument" if fault["type"] == "extra_forbidden" else fault["msg"]


def _details(error: ValidationError) -> list[ErrorDetails]:
    """List field and reason of each mismatch, without the arguments, which may hold anything."""
    return error.errors(include_url=False, include_input=False, include_context=False)


def _parameters(
    function: Callable[..., Any], label: str, about: Mapping[str, str]
) -> tuple[dict[str, Any], str | None]:
    """Return field definitions for `create_model`, and the name of the context parameter. Raises `BadTool`."""
    if inspect.iscoroutinefunction(function):
        raise BadTool(f"tool {label!r}: async functions are not supported: leave async out")
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    context_name = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise BadTool(
                f"tool {label!r}: parameter {parameter.name!r} must be an ordinary named one, without * or /"
            )
        if parameter.name.startswith("_"):
            raise BadTool(f"tool {label!r}: parameter {parameter.name!r} must not begin with an underscore")
        if parameter.name not in hints:
            raise BadTool(f"tool {label!r}: parameter {parameter.name!r} needs a type, such as str")
        if hints[parameter.name] is ToolContext:
            context_name = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        info = FieldInfo(default=default, description=about.get(parameter.name))
        fields[parameter.name] = (hints[parameter.name], info)
    return fields, context_name


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a docstring into the description and the parameter texts of its trailing `Args:` section."""
    head, _, tail = (inspect.getdoc(function) or "").partition("\nArgs:")
    found = (_ARG.match(line) for line in tail.splitlines())
    return head.strip(), {match[1]: match[2] for match in found if match}


class _WithoutTitles(GenerateJsonSchema):
    """Schema generator without pydantic's titles, which only repeat the names and cost tokens in each model call."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_WithoutTitles)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema
