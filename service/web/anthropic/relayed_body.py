"""Body of the Messages API for a model itself: what of it bounds the cost of the call, and what is not passed on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from service.errors import NotFound, fault
from service.llm.relay import RelayedRequest
from service.store.cap_scopes import DEFAULT_NAME
from service.text import exact_json
from service.text.sanitise import storable
from service.types import RunRequest
from service.usage.prices import ANTHROPIC, today
from service.web.anthropic.content_blocks import NO_THREAD
from service.web.body import raw_json
from service.web.client_files import NO_FILE_ID
from service.web.current import current, services
from service.web.schemas import Body
from service.web.validation import validate

WITHOUT_EFFECT = ("temperature", "top_p", "top_k")  # the models take them no longer
# Fields that add nothing to the prompt, or whose own bound is known. Any other may be a part of it, and counts as one.
NO_PROMPT = frozenset(
    {
        *("model", "messages", "system", "tools", "max_tokens", "stream", "metadata", "stop_sequences"),
        *("service_tier", "thinking", "tool_choice", "cache_control", *WITHOUT_EFFECT),
    }
)
# Fields that change what a call costs in a way that its hold does not cover, or make the provider call others.
NOT_OFFERED = (
    "container",
    "context_management",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "speed",
    "thread",
)
_BETAS = re.compile(r"[A-Za-z0-9._ ,-]{1,1000}")
MOST_SHOWN = 20_000  # characters of the question that the run shows; the body itself is not stored
MOST_END_USER = 64  # characters


class Turn(Body):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]]


class MessagesBody(Body):
    """Body of the Messages API; fields that are not named here reach the model unchanged."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=100_000)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = Field(default_factory=list)
    stream: bool = False


def relayed_request(*, needs_limit: bool) -> RelayedRequest:
    """Read the body and what of it bounds the call. Raises `Invalid`, `PriceUnknown` and the errors of `raw_json`.

    The model gets what was read here, written anew: of a name that comes twice it cannot see another value.
    """
    value = raw_json(services().settings.door_body_limit)
    body = validate(MessagesBody, value)
    if needs_limit and "max_tokens" not in value:
        raise fault("/max_tokens", "Field required")
    _refuse_not_offered(value, body)
    price = services().usage.prices.price(body.model, today())
    if price.provider != ANTHROPIC:
        raise NotFound(f"{body.model} is asked at /v1/chat/completions.")
    sent = {name: part for name, part in value.items() if name not in WITHOUT_EFFECT}
    return RelayedRequest(
        model=price.model,  # the body has the name as it was sent
        messages=[turn.model_dump() for turn in body.messages],
        max_tokens=body.max_tokens,
        system=body.system,
        tools=body.tools,
        json_schema={name: part for name, part in sent.items() if name not in NO_PROMPT} or None,
        stream=body.stream,
        user_id=_user_id(value),
        body=exact_json.dumps(sent),
        betas=_betas(),
        by_address=any(_type_of(one.get("source")) == "url" for one in _objects(body)),
        cites=any(_has_citations(one) for one in _objects(body)),
    )


def _refuse_not_offered(value: dict[str, Any], body: MessagesBody) -> None:
    """Refuse what the hold of a call does not cover. Raises `Invalid`."""
    for name in NOT_OFFERED:
        if value.get(name) is not None:
            raise fault(f"/{name}", NO_THREAD if name == "thread" else "is not offered here")
    if value.get("service_tier", "standard_only") not in ("auto", "standard_only"):
        raise fault("/service_tier", "must be auto or standard_only")
    for number, tool in enumerate(body.tools):
        if tool.get("type", "custom") not in (None, "custom"):
            raise fault(f"/tools/{number}/type", "tools that the provider runs are not offered here")
    if any(_is_providers_file(one) for one in _objects(body)):
        raise fault("/messages", NO_FILE_ID)


def _is_providers_file(block: dict[str, Any]) -> bool:
    return _type_of(block.get("source")) == "file" or block.get("type") == "container_upload"


def _objects(body: MessagesBody) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a body, and what is in them at any depth, but for arguments of calls."""
    waiting: list[Any] = [body.system, *(turn.content for turn in body.messages)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            yield one
            waiting += [part for name, part in one.items() if name != "input"]


def _type_of(source: Any) -> Any:
    return source.get("type") if isinstance(source, dict) else None


def _has_citations(block: dict[str, Any]) -> bool:
    """Return whether a block may be a document that is to be cited; only a clear no is one."""
    return block.get("citations") not in (None, [], {"enabled": False})


def _betas() -> str:
    betas: str = current().headers.get("anthropic-beta", "")
    if betas and _BETAS.fullmatch(betas) is None:
        raise fault("", "The header anthropic-beta is not a list of names")
    return betas


def _user_id(value: dict[str, Any]) -> str | None:
    """Return the body's `metadata.user_id`, which the model gets as it is."""
    metadata = value.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user_id if isinstance(user_id, str) else None


def run_request(name: str, asked: RelayedRequest) -> RunRequest:
    """Return the request for the run of a relayed call: of the body, it stores the user's last words only.

    `name`: of the model, as it was asked for.
    """
    return RunRequest(
        agent=name,
        messages=({"role": "user", "content": _question(asked)},),
        max_tokens=asked.max_tokens,
        end_user=_end_user(asked.user_id),
        on_disconnect="cancel",
        relayed=True,
        door="messages/stream" if asked.stream else "messages/invoke",
    )


def _question(asked: RelayedRequest) -> str:
    turns = (message["content"] for message in reversed(asked.messages) if message["role"] == "user")
    return storable(next(filter(None, map(_text, turns)), "")[:MOST_SHOWN])


def _text(content: str | list[dict[str, Any]]) -> str:
    """Return the text of a turn, whose blocks may be anything."""
    if isinstance(content, str):
        return content
    texts = (block.get("text") for block in content if block.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))


def _end_user(user_id: str | None) -> str | None:
    """Return a name for the user that usage and caps can have; a digest of one that is too long for it."""
    if not user_id or (len(user_id) <= MOST_END_USER and user_id.isprintable() and user_id != DEFAULT_NAME):
        return user_id or None
    return "sha256:" + hashlib.sha256(user_id.encode("utf-8", "replace")).hexdigest()[:40]
