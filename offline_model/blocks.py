"""Validation of content blocks in messages, system prompts and tool results."""

from __future__ import annotations

from typing import Any

from offline_model import files
from offline_model.shapes import Json, invalid

BLOCKS = {
    "user": {
        "text",
        "image",
        "document",
        "search_result",
        "tool_result",
        "container_upload",
        "mid_conv_system",
    },
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "search_result"},
    "system": {"text"},
}


def typed(body: Json, name: str, kind: type, required: bool = False, path: str = "") -> Any:
    """Return body[name], checking its type; None when absent and not required. Raises 400."""
    value = body.get(name)
    if value is None and not required:
        return None
    if name not in body:
        raise invalid(f"{path}{name}: Field required")
    if (
        not isinstance(value, kind)
        or (kind is int and isinstance(value, bool))
        or (kind is str and not value)
    ):
        raise invalid(f"{path}{name}: Input should be a valid {kind.__name__}")
    return value


def check_block(block: Any, role: str, path: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or (
        kind not in BLOCKS[role] and not kind.endswith(("_tool_result", "_tool_use", "tool_reference"))
    ):
        raise invalid(f"{path}type: Input tag '{kind}' is not allowed in a {role} message")
    check_mark(block, path)
    if kind == "text":
        if not typed(block, "text", str, required=True, path=path).strip():
            raise invalid(f"{path}text: text content blocks must contain non-whitespace text")
        if role == "user" and block.get("citations"):
            raise invalid(f"{path}citations: citations are not accepted on user text blocks")
    elif kind in CHECKS:
        CHECKS[kind](block, path)


def _check_search_result(block: Json, path: str) -> None:
    typed(block, "citations", dict, path=path)
    typed(block, "source", str, required=True, path=path)
    typed(block, "title", str, required=True, path=path)
    _check_texts(typed(block, "content", list, required=True, path=path), f"{path}content.")


def _check_tool_result(block: Json, path: str) -> None:
    typed(block, "tool_use_id", str, required=True, path=path)
    content = block.get("content")
    if content is not None and not isinstance(content, (str, list)):
        raise invalid(f"{path}content: Input should be a valid string or list")
    for j, inner in enumerate(content if isinstance(content, list) else ()):
        check_block(inner, "user", f"{path}content.{j}.")


def _check_tool_use(block: Json, path: str) -> None:
    typed(block, "id", str, required=True, path=path)
    typed(block, "name", str, required=True, path=path)
    typed(block, "input", dict, required=True, path=path)


def _check_document(block: Json, path: str) -> None:
    for name, kind in (("title", str), ("context", str), ("citations", dict)):
        if block.get(name) not in ("", None):
            typed(block, name, kind, path=path)
    source = typed(block, "source", dict, required=True, path=path)
    if source.get("type") == "text":
        typed(source, "data", str, required=True, path=f"{path}source.")
    elif source.get("type") == "content":
        if not isinstance(source.get("content"), str):
            _check_texts(typed(source, "content", list, required=True, path=path), f"{path}source.content.")
    elif source.get("type") == "base64":
        files.check(source, path)
    elif source.get("type") not in ("url", "file"):
        raise invalid(f"{path}source.type: Input should be 'text', 'content', 'base64', 'url' or 'file'")


def _check_texts(blocks: list[Any], path: str) -> None:
    for i, block in enumerate(blocks):
        if isinstance(block, dict) and block.get("type") == "image":
            continue
        if not isinstance(block, dict) or not isinstance(block.get("text"), str):
            raise invalid(f"{path}{i}: Input should be a text block")


def check_mark(block: Json, path: str) -> None:
    mark = block.get("cache_control")
    if mark is None:
        return
    if (
        not isinstance(mark, dict)
        or mark.get("type") != "ephemeral"
        or mark.get("ttl", "5m") not in ("5m", "1h")
    ):
        raise invalid(f"{path}cache_control: Input should be {{'type': 'ephemeral', 'ttl': '5m' or '1h'}}")


def check_schema(schema: Any, path: str, depth: int = 0) -> None:
    """Check the structure of a JSON Schema, as far as `offline_model.schema` reads it. Raises 400."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > 50:
        raise invalid(f"{path}: JSON schema is invalid: it should be an object no more than 50 deep")
    for name in ("properties", "$defs", "definitions"):
        for key, part in (typed(schema, name, dict, path=f"{path}.") or {}).items():
            check_schema(part, f"{path}.{name}.{key}", depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        for i, part in enumerate(typed(schema, name, list, path=f"{path}.") or ()):
            check_schema(part, f"{path}.{name}.{i}", depth + 1)
    if "items" in schema:
        check_schema(schema["items"], f"{path}.items", depth + 1)
    typed(schema, "enum", list, path=f"{path}.")
    kinds = schema.get("type", "string")
    for name, values in (
        ("required", schema.get("required") or []),
        ("type", kinds if isinstance(kinds, list) else [kinds]),
    ):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise invalid(f"{path}.{name}: JSON schema is invalid: these should be strings")


def _check_image(block: Json, path: str) -> None:
    source = typed(block, "source", dict, required=True, path=path)
    if source.get("type") == "base64":
        files.check(source, path)
    elif source.get("type") not in ("url", "file"):
        raise invalid(f"{path}source.type: Input should be 'base64', 'url' or 'file'")


CHECKS = {
    "image": _check_image,
    "document": _check_document,
    "search_result": _check_search_result,
    "tool_result": _check_tool_result,
    "tool_use": _check_tool_use,
}
