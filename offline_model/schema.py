"""Structured output: JSON valid for a schema, filled from the conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from offline_model import extract
from offline_model.conversation import Conversation
from offline_model.shapes import Json
from offline_model.text import overlap, stems

MAX_DEPTH = 8
MAX_ITEMS = 3
ASKED_FOR = re.compile(
    r"quer|question|topic|task|request|input|instruction|search|title|subject|prompt", re.IGNORECASE
)
NEGATIVE_WORDS = re.compile(
    r"flag|block|unsafe|harm|inject|violat|spam|escalat|needs?_|requires?_|error|fail|refus|missing|more|toxic|revis|retry",
    re.IGNORECASE,
)
FORMATS = {
    "date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "time": "00:00:00Z", "duration": "P1D",
    "email": "offline@example.com", "uri": "https://example.com/", "hostname": "example.com",
    "uuid": "00000000-0000-4000-8000-000000000000", "ipv4": "127.0.0.1", "ipv6": "::1",
}  # fmt: skip


class Filler:
    """Filler of one schema. `answer` returns the extracted answer to a question; called only when needed."""

    def __init__(self, schema: Json, parsed: Conversation, answer: Callable[[str], str]) -> None:
        self._root = schema
        self._parsed = parsed
        self._answer = answer

    def fill(self) -> Any:
        return self._value(self._root, "", self._parsed.question, 0)

    def _value(self, schema: Any, name: str, asked: str, depth: int) -> Any:
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._enum(schema, asked)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "null")
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        if kind == "object":
            return self._object(schema, asked, depth)
        if kind == "array":
            return self._array(schema, name, asked, depth)
        if kind == "boolean":
            return self._boolean(schema, name, asked)
        if kind in ("integer", "number"):
            return number(schema, name, asked, kind)
        return None if kind == "null" else self._string(schema, name, asked)

    def _resolve(self, schema: Any) -> Json:
        """Follow $ref, take the first anyOf that is not null, merge allOf."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict):
                return {}
            if "$ref" in schema:
                target: Any = self._root
                for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
                    target = target.get(step, {}) if step and isinstance(target, dict) else target
                schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
            elif schema.get("anyOf") or schema.get("oneOf"):
                options = schema.get("anyOf") or schema["oneOf"]
                schema = next((o for o in options if o.get("type") != "null"), options[0])
            elif schema.get("allOf"):
                parts = [self._resolve(part) for part in schema["allOf"]]
                merged = {k: v for part in parts for k, v in part.items()}
                merged["properties"] = {k: v for p in parts for k, v in p.get("properties", {}).items()}
                schema = {**merged, **{k: v for k, v in schema.items() if k != "allOf"}}
            else:
                break
        return schema if isinstance(schema, dict) else {}

    def _object(self, schema: Json, asked: str, depth: int) -> Json:
        wanted = schema.get("properties") or {}
        if depth >= MAX_DEPTH:  # a schema that contains itself
            wanted = {k: v for k, v in wanted.items() if k in schema.get("required", ())}
        return {name: self._value(part, name, asked, depth + 1) for name, part in wanted.items()}

    def _array(self, schema: Json, name: str, asked: str, depth: int) -> list[Any]:
        least = int(limit(schema, "minItems", 0))
        most = max(least, min(MAX_ITEMS, int(limit(schema, "maxItems", MAX_ITEMS))))
        if depth >= MAX_DEPTH or most == 0:
            return []
        parts = split_task(asked)[:most]
        parts += [f"{asked} ({i + 1})" for i in range(len(parts), least)]
        values: list[Any] = []
        for part in parts:
            value = self._value(schema.get("items") or {"type": "string"}, name, part, depth + 1)
            if value not in values or len(values) < least:
                values.append(value)
        return values

    def _enum(self, schema: Json, asked: str) -> Any:
        values = schema["enum"]
        names = [v for v in values if isinstance(v, str)]
        if not names:
            return values[0]
        about = str(schema.get("description", ""))
        return extract.choose(
            asked, names, about, re.sub(r"[;,]\s*(?=[\w ]+[:=])", "\n", about), self._parsed.system
        )

    def _boolean(self, schema: Json, name: str, asked: str) -> bool:
        """Fill a boolean positively (draft fine, nothing flagged), unless the question has a negative word."""
        if NEGATIVE_WORDS.search(name):
            return overlap(stems(name), stems(asked)) > 0
        return True

    def _string(self, schema: Json, name: str, asked: str) -> str:
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        value = asked if ASKED_FOR.search(name) else self._answer(asked)
        least, most = int(limit(schema, "minLength", 0)), int(limit(schema, "maxLength", 10_000))
        return value[:most].ljust(least, ".")


def schema_in_words(system: str) -> Json | None:
    """Return the schema that follows “… valid for this JSON Schema:” in a system prompt."""
    _, found, rest = system.rpartition("valid for this JSON Schema:")
    try:
        schema, _ = json.JSONDecoder().raw_decode(rest.lstrip()) if found else (None, 0)
    except (ValueError, RecursionError):
        return None
    return schema if isinstance(schema, dict) else None


def number(schema: Json, name: str, asked: str, kind: str) -> float:
    """Return a number in range: one from the question, or four fifths of the range for a score."""
    low, high = limit(schema, "minimum", None), limit(schema, "maximum", None)
    if high is None and re.search(r"confiden|probab|likel", name, re.IGNORECASE):
        low, high = 0, 1
    numbers = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", asked)]
    if low is not None and high is not None:
        value = low + 0.8 * (high - low)
    elif re.search(r"score|rating|grade", name, re.IGNORECASE):
        value = 8.0
    else:
        value = numbers[0] if numbers else 1.0
    value = max(value, low) if low is not None else value
    value = min(value, high) if high is not None else value
    return int(value) if kind == "integer" else round(value, 6)


def limit(schema: Json, name: str, default: Any) -> Any:
    """Return a bound, also from the description, where the SDK moves keywords that the API refuses."""
    if isinstance(schema.get(name), (int, float)):
        return schema[name]
    moved = re.search(rf"\b{name}\"?: (-?\d+(?:\.\d+)?)", str(schema.get("description", "")))
    return float(moved[1]) if moved else default


def split_task(text: str) -> list[str]:
    """Split a task into sentences, then at `and` when both halves have content words."""
    parts = [
        p.strip(" ,;.")
        for p in re.split(r"(?<=[?!.;])\s+|\n+|,?\s+(?:and then|then|and|versus|vs\.?)\s+", text)
    ]
    titled = [p for p in parts if len(stems(p)) > 0]
    return list(dict.fromkeys(titled)) or [text]
