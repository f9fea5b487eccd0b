"""Model catalogue of GET /v1/models, with each model's restrictions."""

from __future__ import annotations

from dataclasses import dataclass

from offline_model.shapes import ApiError, Json, invalid

UNKNOWN = "1970-01-01"  # upstream: "may be set to an epoch value if the release date is unknown"


@dataclass(frozen=True)
class Model:
    """Catalogue entry. Dates are YYYY-MM-DD; `strict` models refuse forced tool use and thinking options."""

    id: str
    name: str
    line: str
    released: str
    context: int = 1_000_000
    output: int = 128_000
    lifecycle: str = "active"
    retires: str | None = None
    strict: bool = False

    def public(self) -> Json:
        """Return the API's model object (types/model_info.py of the SDK)."""
        deprecated = None if self.lifecycle == "active" else f"{UNKNOWN}T00:00:00Z"
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.name,
            "line": self.line,
            "created_at": f"{self.released}T00:00:00Z",
            "lifecycle": self.lifecycle,
            "deprecated_at": deprecated,
            "retires_at": f"{self.retires}T00:00:00Z" if self.retires else None,
            "max_input_tokens": self.context,
            "max_tokens": self.output,
            "capabilities": _capabilities(self),
        }


def _capabilities(model: Model) -> Json:
    """Return the capabilities of this mock, not of the real model: for example no PDF support."""
    yes, no = {"supported": True}, {"supported": False}
    levels = dict.fromkeys(("low", "medium", "high", "max", "xhigh"), yes)
    thinking = {"adaptive": yes, "between_tools": yes, "disabled": no if model.strict else yes}
    return {
        "batch": yes,
        "citations": yes,
        "code_execution": no,
        "context_management": no,
        "effort": yes | levels,
        "image_input": no,
        "pdf_input": no,
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": yes | {"types": thinking | {"enabled": no if model.strict else yes}},
    }


CATALOGUE = {
    model.id: model
    for model in (
        Model("claude-fable-5-2", "Claude Fable 5.2", "fable", "2026-11-09", strict=True),
        Model("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", UNKNOWN),
        Model("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", UNKNOWN, strict=True),
        Model("claude-opus-5-5", "Claude Opus 5.5", "opus", UNKNOWN, strict=True),
        Model("claude-fable-5-1", "Claude Fable 5.1", "fable", UNKNOWN, strict=True),
        Model("claude-sonnet-5", "Claude Sonnet 5", "sonnet", UNKNOWN),
        Model("claude-opus-5", "Claude Opus 5", "opus", UNKNOWN),
        Model("claude-opus-4-8", "Claude Opus 4.8", "opus", UNKNOWN),
        Model("claude-sonnet-4-6", "Claude Sonnet 4.6", "sonnet", UNKNOWN, output=64_000),
        Model("claude-haiku-4-5", "Claude Haiku 4.5", "haiku", "2025-10-01", 200_000, 64_000),
        Model(
            *("claude-sonnet-4-5", "Claude Sonnet 4.5", "sonnet", "2025-09-29", 200_000, 64_000),
            lifecycle="deprecated", retires="2026-11-30",
        ),
        Model(
            *("claude-sonnet-4-0", "Claude Sonnet 4", "sonnet", "2025-05-14", 200_000, 64_000),
            lifecycle="retired", retires="2026-06-15",
        ),
    )
}  # fmt: skip


def find(name: str) -> Model:
    """Find a model by name, with or without `offline-`; unknown claude-… names get default limits.

    Raises 404 for other unknown and for retired names, as upstream.
    """
    bare = name.removeprefix("offline-")
    model = CATALOGUE.get(bare)
    if model is None and (name.startswith("offline-") or bare.startswith("claude-")):
        return Model(name, name, "sonnet", UNKNOWN)
    if model is None or model.lifecycle == "retired":
        raise ApiError(404, f"model: {name}")
    return model


def page(query: dict[str, list[str]]) -> Json:
    """Serve GET /v1/models: newest first, with `lifecycle`, `limit`, `after_id` and `before_id`."""
    wanted = query.get("lifecycle[]") or query.get("lifecycle")
    rows = [m.public() for m in CATALOGUE.values() if not wanted or m.lifecycle in wanted]
    return paginate(rows, query)


def paginate(rows: list[Json], query: dict[str, list[str]]) -> Json:
    """Return a page of rows with ids, in the list format of this API."""
    try:
        limit = int(query.get("limit", ["20"])[0])
    except ValueError:
        raise invalid("limit: Input should be a valid integer") from None
    if not 1 <= limit <= 1000:
        raise invalid("limit: Input should be between 1 and 1000")
    ids = [row["id"] for row in rows]
    after, before = query.get("after_id", [""])[0], query.get("before_id", [""])[0]
    if after:
        rows = rows[ids.index(after) + 1 :] if after in ids else []
    if before:
        rows = rows[: ids.index(before)] if before in ids else []
        shown, more = rows[-limit:], len(rows) > limit
    else:
        shown, more = rows[:limit], len(rows) > limit
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"data": shown, "has_more": more, "first_id": first, "last_id": last}
