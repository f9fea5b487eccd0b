"""Request validation of API version 2026-10-21. Functions raise upstream's 400 (or 404)."""

from __future__ import annotations

import re
from typing import Any

import orjson

from offline_model import caching, models
from offline_model.blocks import BLOCKS, check_block, check_mark, check_schema, typed
from offline_model.models import Model
from offline_model.shapes import Json, invalid

REMOVED = ("temperature", "top_p", "top_k")
_NAMES = (
    "model max_tokens messages cache_control container diagnostics inference_geo metadata output_config "
    "service_tier speed stop_sequences stream system thinking tool_choice tools user_profile_id workspace_id "
    # beta fields, accepted and not acted on
    "betas thread context_management mcp_servers fallbacks compaction output_format"
)
KNOWN = frozenset(_NAMES.split())
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")


def parse_json(body: bytes) -> Json:
    """Parse a JSON object. Raises 400."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("The request body is not a JSON object")
    return value


def check_message(body: Json, counting: bool = False) -> Model:
    """Check a request of POST /v1/messages, or of count_tokens, which needs no max_tokens."""
    for name in REMOVED:
        if name in body:
            raise invalid(f"{name}: this parameter is no longer supported at API version 2026-10-21")
    for name in body:
        if name not in KNOWN:
            raise invalid(f"{name}: Extra inputs are not permitted")
    model = models.find(typed(body, "model", str, required=True))
    if not counting:
        _check_max_tokens(body, model)
    _check_options(body)
    _check_system(body)
    _check_tools(body, model)
    _check_thinking(body, model)
    _check_messages(body)
    if caching.marks(body) > 4:
        raise invalid("A maximum of 4 blocks with cache_control may be provided")
    return model


def _check_max_tokens(body: Json, model: Model) -> None:
    most = typed(body, "max_tokens", int, required=True)
    if most < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    if most > model.output:
        raise invalid(f"max_tokens: {most} > {model.output}, which is the maximum allowed for {model.id}")


def _check_options(body: Json) -> None:
    typed(body, "stream", bool)
    metadata = typed(body, "metadata", dict) or {}
    typed(metadata, "user_id", str, path="metadata.")
    for i, stop in enumerate(typed(body, "stop_sequences", list) or ()):
        if not isinstance(stop, str) or not stop.strip():
            raise invalid(f"stop_sequences.{i}: each stop sequence must contain non-whitespace")
    form = (typed(body, "output_config", dict) or {}).get("format")
    if form is not None and not (
        isinstance(form, dict) and form.get("type") == "json_schema" and isinstance(form.get("schema"), dict)
    ):
        raise invalid("output_config.format: Input should be {'type': 'json_schema', 'schema': {...}}")
    if form is not None:
        check_schema(form["schema"], "output_config.format.schema")
    check_mark(body, "")


def _check_system(body: Json) -> None:
    system = body.get("system")
    if system is not None and not isinstance(system, (str, list)):
        raise invalid("system: Input should be a valid string or a list of text blocks")
    for i, block in enumerate(system if isinstance(system, list) else ()):
        check_block(block, "system", f"system.{i}.")


def _check_tools(body: Json, model: Model) -> None:
    names: set[str] = set()
    for i, tool in enumerate(typed(body, "tools", list) or ()):
        if not isinstance(tool, dict):
            raise invalid(f"tools.{i}: Input should be an object")
        check_mark(tool, f"tools.{i}.")
        if tool.get("type", "custom") not in ("custom", None):
            continue  # a server tool: accepted, never called
        name = typed(tool, "name", str, required=True, path=f"tools.{i}.")
        if not TOOL_NAME.match(name):
            raise invalid(f"tools.{i}.name: String should match pattern '{TOOL_NAME.pattern}'")
        if name in names:
            raise invalid("tools: Tool names must be unique.")
        names.add(name)
        schema = typed(tool, "input_schema", dict, required=True, path=f"tools.{i}.")
        if schema.get("type") != "object":
            raise invalid(f"tools.{i}.input_schema.type: Input should be 'object'")
        check_schema(schema, f"tools.{i}.input_schema")
    choice = typed(body, "tool_choice", dict)
    if choice is not None:
        _check_choice(choice, names, model)


def _check_choice(choice: Json, names: set[str], model: Model) -> None:
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if kind in ("any", "tool") and model.strict:
        raise invalid(f"tool_choice: forced tool use is not supported by {model.id}")
    if kind == "tool" and choice.get("name") not in names:
        raise invalid(f"tool_choice.name: Tool '{choice.get('name')}' not found in provided tools")
    if kind == "any" and not names:
        raise invalid("tool_choice: may only be specified while providing tools")


def _check_thinking(body: Json, model: Model) -> None:
    kind = (typed(body, "thinking", dict) or {"type": "adaptive"}).get("type")
    if kind not in ("adaptive", "between_tools", "enabled", "disabled"):
        raise invalid("thinking.type: Input should be 'adaptive', 'between_tools', 'enabled' or 'disabled'")
    if model.strict and kind in ("enabled", "disabled"):
        raise invalid(f"thinking.type: '{kind}' is not supported by {model.id}")


def _check_messages(body: Json) -> None:
    messages = typed(body, "messages", list, required=True)
    turns = [m for m in messages if not isinstance(m, dict) or m.get("role") != "system"]
    if not turns:
        raise invalid("messages: at least one message is required")
    for i, message in enumerate(messages):
        _check_one_message(message, f"messages.{i}")
    if turns[0]["role"] != "user":
        raise invalid('messages: first message must use the "user" role')
    if turns[-1]["role"] == "assistant":
        raise invalid(
            "messages: the final message must use the user role; assistant prefill is not supported"
        )
    _check_tool_pairs(turns)


def _check_one_message(message: Any, path: str) -> None:
    if not isinstance(message, dict):
        raise invalid(f"{path}: Input should be an object")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in BLOCKS:
        raise invalid(f"{path}.role: Input should be 'user', 'assistant' or 'system'")
    if not isinstance(content, (str, list)):
        raise invalid(f"{path}.content: Input should be a valid string or list")
    if not content and role != "assistant":
        raise invalid(f"{path}.content: {role} messages must have non-empty content")
    for j, block in enumerate(content if isinstance(content, list) else ()):
        check_block(block, role, f"{path}.content.{j}.")


def _check_tool_pairs(messages: list[Json]) -> None:
    """Check that every tool_use, and nothing else, is answered in the next message."""
    asked: set[str] = set()
    for i, message in enumerate(messages):
        parts = message["content"] if isinstance(message["content"], list) else []
        given = {p["tool_use_id"] for p in parts if p["type"] == "tool_result"}
        if given - asked:
            raise invalid(
                f"messages.{i}: unexpected `tool_use_id` found in `tool_result` blocks: {min(given - asked)}"
            )
        if asked - given:
            raise invalid(
                f"messages.{i}: `tool_use` ids were found without `tool_result` blocks: {min(asked - given)}"
            )
        asked = {p["id"] for p in parts if p["type"] == "tool_use"}
