"""JSON Schema (Draft 2020-12) given by users: bounded when it arrives, and a value is checked in bounded time.

Nothing is loaded from elsewhere, a schema must not contain itself, and patterns run in a regex engine without
backtracking. So the work of a check is at most the schema's parts, with references followed, times the value's length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, NoReturn

import jsonschema_rs

MAX_BYTES = 32 * 1024  # of a schema, as compact JSON
MAX_DEPTH = 32  # levels of a schema, with references followed
MAX_PARTS = 1_000  # parts of a schema, with references followed: subschemas, literals, characters of patterns
MAX_WORK = 50_000_000  # parts times characters of a value: about a second
LISTED_WORK = (
    100_000  # the same, up to which faults are listed: the library makes all of them, in up to 20 µs each
)
MAX_FAULTS = 5  # reported of one value
MAX_MESSAGE = 200  # characters of one fault
TYPES = "must be array, boolean, integer, null, number, object or string, or a list of these"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

_SCHEMAS_WORDS = (
    "items contains additionalProperties propertyNames not if then else unevaluatedItems "
    "unevaluatedProperties contentSchema"
)
_SCHEMAS = frozenset(_SCHEMAS_WORDS.split())
_AGAIN = frozenset(["unevaluatedItems", "unevaluatedProperties"])
_COUNTED = frozenset(["pattern", "enum", "const", "required", "dependentRequired"])
_LISTS = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
_MAPS = frozenset(
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"]
)
_REFUSED_WORDS = "$id $anchor $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor $vocabulary"
_REFUSED = frozenset(_REFUSED_WORDS.split())
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=256 * 1024, dfa_size_limit=1024 * 1024)
_INT64 = range(-(2**63), 2**63)
Path = tuple[str | int, ...]


class SchemaFault(ValueError):
    """Raised for a schema that is not accepted; `path` leads to the part at fault."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.detail = detail


class ValueFault(NamedTuple):
    """Mismatch of a value: the path into it, the keyword that it violates, and a message that may quote it."""

    path: Path
    keyword: str
    message: str


class JsonSchema:
    """Compiled schema. Raises `SchemaFault` for one that is not valid, too large, or refers to itself or elsewhere."""

    def __init__(self, schema: dict[str, Any]) -> None:
        _check_size(schema)
        if schema.get("$schema", DRAFT) not in (DRAFT, f"{DRAFT}#"):
            raise SchemaFault(("$schema",), "must be Draft 2020-12, or left out")
        try:
            jsonschema_rs.meta.validate(schema)
        except jsonschema_rs.ValidationError as wrong:
            # `type` is the only keyword that the schema of schemas describes by `anyOf`.
            detail = TYPES if wrong.kind.name == "anyOf" else wrong.message
            raise SchemaFault(tuple(wrong.instance_path), detail[:MAX_MESSAGE]) from None
        self._parts = _Weigher(schema).weigh()
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema, validate_formats=True, pattern_options=_PATTERNS, retriever=_refuse
            )
        except ValueError as error:  # such as a pattern with a look-ahead
            path = tuple(getattr(error, "instance_path", ()))
            raise SchemaFault(path, str(getattr(error, "message", error))[:MAX_MESSAGE]) from None

    def faults(self, value: Any, length: int) -> list[ValueFault]:
        """List at most `MAX_FAULTS` mismatches of a JSON value, whose text has `length` characters."""
        if self._parts * length > MAX_WORK:
            return [ValueFault((), "length", "is too long to be checked against this schema")]
        if self._validator.is_valid(value):
            return []
        if self._parts * length > LISTED_WORK:
            return [ValueFault((), "schema", "is not valid, and too long for its faults to be listed")]
        return [
            ValueFault(tuple(error.instance_path), error.kind.name, error.message[:MAX_MESSAGE])
            for error in islice(self._validator.iter_errors(value), MAX_FAULTS)
        ]


def pointer(path: Path) -> str:
    """Build a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _refuse(uri: str) -> NoReturn:
    raise ValueError("nothing is loaded from elsewhere")


def _check_size(schema: dict[str, Any]) -> None:
    """Check that a schema is JSON within the bounds. Raises `SchemaFault`."""
    try:
        text = json.dumps(schema, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError):  # such as a date of YAML, or half a surrogate pair
        raise SchemaFault((), "must be JSON") from None
    if size > MAX_BYTES:
        raise SchemaFault((), f"must not have more than {MAX_BYTES} bytes as JSON")
    todo: list[tuple[Path, Any]] = [((), schema)]
    while todo:
        path, value = todo.pop()
        if len(path) > 2 * MAX_DEPTH:
            raise SchemaFault((), f"must not be nested deeper than {2 * MAX_DEPTH} levels")
        if isinstance(value, int) and value not in _INT64:
            raise SchemaFault(path, "must fit 64 bits")
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for part, inner in items:
            if not isinstance(part, str | int) or (isinstance(value, dict) and not isinstance(part, str)):
                raise SchemaFault(path, "must have text as names")
            todo.append(((*path, part), inner))


class _Size(NamedTuple):
    parts: int
    height: int  # levels


class _Weigher:
    """Counts the parts of a valid schema, following references. Raises `SchemaFault` beyond a bound."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[int, _Size] = {}  # by identity of the subschema
        self._open: set[int] = set()

    def weigh(self) -> int:
        return self._size(self._root, (), 0).parts

    def _size(self, schema: Any, path: Path, depth: int) -> _Size:
        if not isinstance(schema, dict):
            return _Size(schema if type(schema) is int else 1, 0)
        if id(schema) in self._open:
            raise SchemaFault(path, "must not contain itself")
        known = self._known.get(id(schema))
        if depth + (known.height if known else 0) > MAX_DEPTH:
            raise SchemaFault(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        if known is None:
            self._open.add(id(schema))
            inside = [self._size(inner, at, depth + 1) for at, inner in self._inside(schema, path)]
            self._open.discard(id(schema))
            # What stands beside `unevaluated…` is checked again to know what it has evaluated.
            times = 2 if _AGAIN & schema.keys() else 1
            parts = 1 + times * sum(one.parts for one in inside)
            known = _Size(parts, 1 + max((one.height for one in inside), default=0))
            if known.parts > MAX_PARTS:
                detail = f"must not have more than {MAX_PARTS} parts, where references are followed"
                raise SchemaFault(path, detail)
            self._known[id(schema)] = known
        return known

    def _inside(self, schema: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
        """Yield subschemas with their places, and a number for anything else that costs time."""
        for keyword, value in schema.items():
            at = (*path, keyword)
            if keyword in _REFUSED or (keyword == "$schema" and path):
                raise SchemaFault(at, "is not supported")
            if keyword == "$ref":
                yield at, self._target(value, at)
            elif keyword in _SCHEMAS:
                yield at, value
            elif keyword in _LISTS:
                yield from (((*at, number), one) for number, one in enumerate(value))
            elif keyword in _MAPS:
                yield at, sum(map(len, value)) if keyword == "patternProperties" else 0
                yield from (((*at, name), one) for name, one in value.items())
            else:
                yield at, _length(value) if keyword in _COUNTED else 1

    def _target(self, reference: str, path: Path) -> Any:
        """Find the definition that a reference leads to. Raises `SchemaFault` for any other reference."""
        found = re.fullmatch(r"#/(\$defs|definitions)/([^/%]+)", reference)
        if found is None:
            raise SchemaFault(path, "must lead to a definition of this schema, such as #/$defs/item")
        named = self._root.get(found[1], {})
        name = found[2].replace("~1", "/").replace("~0", "~")
        if name not in named:
            raise SchemaFault(path, "leads nowhere")
        return named[name]


def _length(value: Any) -> int:
    """Count characters of a pattern, and values of a list or object."""
    if isinstance(value, str):
        return len(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_length, items))
