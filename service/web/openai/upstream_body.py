"""Body of Chat Completions for a model of the upstream: what of it bounds the cost of the call.

Fields that are not named here reach the model unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.errors import fault
from service.llm.relay import ChatRequest
from service.text import exact_json
from service.text.sanitise import storable
from service.types import RunRequest
from service.usage.prices import OPENAI, Price, today
from service.web.body import raw_json
from service.web.client_files import NO_FILE_ID
from service.web.current import services
from service.web.relaying import model_named
from service.web.schemas import Body, EndUser
from service.web.validation import validate

# Fields that change what a call costs in a way that its hold does not cover, or make the provider call others; also of
# upstreams that are gateways themselves.
NOT_OFFERED = (
    *("audio", "prediction", "web_search_options", "best_of"),
    *("models", "route", "preset", "plugins", "search_parameters"),
)
CLIENT_TOOLS = ("function", "custom")  # types of tools that the caller runs
TEXTUAL = ("text", "refusal")  # types of content whose tokens their bytes bound
COUNTED_BY_CONTEXT = ("image_url", "file")  # any other type, such as audio, has a price of its own
MOST_SHOWN = 20_000  # characters of the question that the run shows; the body itself is not stored
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class StreamOptions(Body):
    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class UpstreamBody(Body):
    """Body of Chat Completions; fields that are not named here reach the model unchanged."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100_000)]
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1_000)] | None = None
    n: Literal[1] | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None


def names_upstream_model() -> bool:
    """Return whether the body names a model of the upstream, and no agent."""
    name = model_named()
    return name is not None and services().usage.prices.provider(name) == OPENAI


def chat_request() -> tuple[UpstreamBody, ChatRequest]:
    """Read the body and what of it bounds the call. Raises `Invalid`, `PriceUnknown` and the errors of `raw_json`.

    The model gets what was read here, written anew: of a name that comes twice it cannot see another value.
    """
    value = raw_json(services().settings.door_body_limit)
    body = validate(UpstreamBody, value, texts=())
    price = services().usage.prices.price(body.model, today())
    check_not_offered(value, body.tools or ())
    sent, options = dict(value), body.stream_options
    if body.stream:
        sent["stream_options"] = {**(value.get("stream_options") or {}), "include_usage": True}
    written = exact_json.dumps(sent)
    request = ChatRequest(
        model=price.model,
        messages=[{"role": "user", "content": _counted(body, price, written)}],
        max_tokens=most_output(
            [body.max_completion_tokens, body.max_tokens], price, "/max_completion_tokens"
        ),
        tools=[{}],  # are in the content; this counts what chat templates add to a prompt
        stream=bool(body.stream),
        body=written,
        tells_usage=options is not None and bool(options.include_usage),
        context_tokens=price.context_tokens or 0,
    )
    return body, request


def run_request(body: UpstreamBody, asked: ChatRequest) -> RunRequest:
    """Return the request for the run of a relayed call: of the body, it stores the user's last words only."""
    return RunRequest(
        agent=body.model,
        messages=({"role": "user", "content": _question(body)},),
        max_tokens=asked.max_tokens,
        end_user=body.safety_identifier or body.user,
        on_disconnect="cancel",
        relayed=True,
        door="chat/stream" if asked.stream else "chat/invoke",
    )


def check_not_offered(
    value: dict[str, Any], tools: Sequence[dict[str, Any]], more: Sequence[str] = ()
) -> None:
    """Refuse what the hold of a call does not cover. Raises `Invalid`."""
    for name in (*NOT_OFFERED, *more):
        if value.get(name) is not None:
            raise fault(f"/{name}", "is not offered here")
    for number, tool in enumerate(tools):
        if tool.get("type") not in CLIENT_TOOLS:
            raise fault(f"/tools/{number}/type", "tools that the provider runs are not offered here")


def most_output(asked: Sequence[int | None], price: Price, where: str) -> int:
    """Return the most tokens that the answer may have. Raises `Invalid` where neither body nor price says."""
    given = [most for most in asked if most is not None]
    if not given and price.max_output_tokens is None:
        raise fault(where, "Field required")
    return max(given) if given else price.max_output_tokens or 0


def _counted(body: UpstreamBody, price: Price, written: bytes) -> list[dict[str, Any]]:
    """Return the whole body as one text, whose bytes bound the prompt; or a block that they do not bound.

    Raises `Invalid` for content that has a price of its own, or whose tokens nothing bounds.
    """
    kinds = [_kinds(message, number) for number, message in enumerate(body.messages)]
    if not any(COUNTED_BY_CONTEXT[0] in each or COUNTED_BY_CONTEXT[1] in each for each in kinds):
        return [{"type": "text", "text": written.decode()}]
    if price.context_tokens is None:
        raise fault("/messages", "has an image or a file, and the price of this model has no context_tokens")
    return [{"type": "image"}]


def _kinds(message: dict[str, Any], number: int) -> set[str]:
    """Return the types of a message's content. Raises `Invalid` for one that is not offered."""
    content = message.get("content")
    if message.get("audio") is not None:
        raise fault(f"/messages/{number}/audio", "is not offered here")
    if content is None or isinstance(content, str):
        return set()
    if not isinstance(content, list):
        raise fault(f"/messages/{number}/content", "must be a text or a list of parts")
    kinds = {str(part.get("type")) if isinstance(part, dict) else "" for part in content}
    if other := kinds - {*TEXTUAL, *COUNTED_BY_CONTEXT}:
        raise fault(f"/messages/{number}/content", f"has a part that is not offered here: {min(other)[:64]}")
    if any(_is_providers_file(part) for part in content):
        raise fault(f"/messages/{number}/content", NO_FILE_ID)
    return kinds


def _is_providers_file(part: dict[str, Any]) -> bool:
    file = part.get("file")
    return part["type"] == "file" and not (isinstance(file, dict) and file.get("file_id") is None)


def _question(body: UpstreamBody) -> str:
    users = (message for message in reversed(body.messages) if message.get("role") == "user")
    return storable(next(filter(None, map(_text, users)), "")[:MOST_SHOWN])


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content or () if part.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))
