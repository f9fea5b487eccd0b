"""YAML with line numbers, so that faults can be located."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from service.text.suggest import unknown

_LIST = "must be a list: one in each line after a dash, or [one, other]"
_FIELDS = "must hold fields: `name: value`, each in a line of its own"
# In place of pydantic's messages.
_IN_YAML = {"tuple_type": _LIST, "list_type": _LIST, "model_type": _FIELDS, "dict_type": _FIELDS}
T = TypeVar("T")
FieldPath = Sequence[str | int]  # keys and positions from the top, such as ("limits", "steps")


class YamlFault(NamedTuple):
    """Fault in a file: line counted from 1, field (`limits.steps`; empty: the whole file), and description."""

    line: int
    field: str
    detail: str


class YamlFaults(Exception):
    """Raised with all faults found in one file."""

    def __init__(self, faults: Sequence[YamlFault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = tuple(faults)


class MarkedYaml:
    """YAML document, safely loaded. Raises `YamlFaults` when it cannot be parsed or repeats a key."""

    def __init__(self, text: str) -> None:
        try:
            self._root, self._value = _load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise YamlFaults([YamlFault(line, "", f"not YAML: {error.problem}")]) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # invalid characters, impossible dates, excessive nesting
            raise YamlFaults([YamlFault(1, "", f"not YAML: {type(error).__name__}")]) from None
        repeated = list(_repeated_keys(self._root, [], set()))
        if repeated:
            raise YamlFaults(repeated)

    def read(self, shape: TypeAdapter[T]) -> T:
        """Validate the document as `shape`. Raises `YamlFaults` with a line for every mismatch."""
        try:
            return shape.validate_python(self._value)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise YamlFaults([self._fault_at(shape, one["loc"], one["type"], one["msg"]) for one in faults])

    def _fault_at(self, shape: TypeAdapter[T], loc: FieldPath, kind: str, message: str) -> YamlFault:
        path = [part for part in loc if part != "[key]"]
        if kind == "extra_forbidden":
            known = _fields_at(shape.json_schema(), path[:-1])
            return self.fault(path, f"there is no such field{unknown(str(path[-1]), known)}")
        if kind in _IN_YAML:
            return self.fault(path, _IN_YAML[kind])
        return self.fault(path, message.removeprefix("Value error, "))  # pydantic's, of custom validators

    def fault(self, path: FieldPath, detail: str) -> YamlFault:
        """Make a fault for the field at `path`; a missing field gets the line of its parent."""
        return YamlFault(self._line(path), ".".join(map(str, path)), detail)

    def _line(self, path: FieldPath) -> int:
        node, line = self._root, 1
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if found is None:
                    return line
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                return line
        return line


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _repeated_keys(node: yaml.Node | None, path: list[str | int], seen: set[int]) -> Iterator[YamlFault]:
    """Find repeated keys: YAML readers silently keep the last one, which need not be the one intended."""
    if node is None or id(node) in seen:  # an alias may form a cycle
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            key_path = [*path, str(key.value)]
            if str(key.value) in keys:
                yield YamlFault(key.start_mark.line + 1, ".".join(map(str, key_path)), "is there twice")
            keys.add(str(key.value))
            yield from _repeated_keys(value, key_path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _repeated_keys(item, [*path, number], seen)


def _fields_at(schema: Mapping[str, Any], path: FieldPath) -> list[str]:
    """List the field names that a JSON Schema has at a path."""
    node = _resolved(schema, schema)
    for part in path:
        node = _resolved(schema, _below(node, part))
    return list(node.get("properties", ()))


def _below(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any]:
    if isinstance(part, int):
        return node.get("items") or {}
    keyed = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return node.get("properties", {}).get(part) or next((one for one in keyed if isinstance(one, dict)), {})


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    reference: str = node.get("$ref", "")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node
