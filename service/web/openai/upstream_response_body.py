"""Body of the Responses API for a model of the upstream: what of it bounds the cost of the call.

Fields that are not named here reach the model unchanged. Nothing is kept at the upstream: an answer there could be gone
on from, or be made in the background, outside of any hold.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.errors import fault
from service.llm.relay import ResponsesRequest
from service.text import exact_json
from service.text.sanitise import storable
from service.types import RunRequest
from service.usage.prices import Price, today
from service.web.body import raw_json
from service.web.client_files import NO_FILE_ID
from service.web.current import services
from service.web.openai.upstream_body import MOST_SHOWN, Tokens, check_not_offered, most_output
from service.web.schemas import Body, EndUser
from service.web.validation import validate

# Fields that add to the prompt what is not in the body, or work beyond the call.
NOT_OFFERED = (
    *("previous_response_id", "conversation", "prompt", "background_options", "context_management"),
    *("moderation", "image", "access_programs"),
)
# Types of items and of parts whose tokens their bytes bound; those of the others, the model's context does.
TEXTUAL = frozenset(
    {
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("input_text", "output_text", "text", "refusal", "reasoning"),
    }
)
COUNTED_BY_CONTEXT = frozenset({"input_image", "input_file", "summary_text", "reasoning_text"})


class UpstreamResponseBody(Body):
    """Body of the Responses API; fields that are not named here reach the model unchanged."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=128)]
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100_000)]
    max_output_tokens: Tokens | None = None
    stream: bool | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1_000)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None


def response_request() -> tuple[UpstreamResponseBody, ResponsesRequest]:
    """Read the body and what of it bounds the call. Raises `Invalid`, `PriceUnknown` and the errors of `raw_json`."""
    value = raw_json(services().settings.door_body_limit)
    body = validate(UpstreamResponseBody, value, texts=())
    price = services().usage.prices.price(body.model, today())
    check_not_offered(value, body.tools or (), NOT_OFFERED)
    written = exact_json.dumps({**value, "store": False})
    request = ResponsesRequest(
        model=price.model,
        messages=[{"role": "user", "content": _counted(body, price, written)}],
        max_tokens=most_output([body.max_output_tokens], price, "/max_output_tokens"),
        tools=[{}],  # are in the content; this counts what chat templates add to a prompt
        stream=bool(body.stream),
        body=written,
        context_tokens=price.context_tokens or 0,
    )
    return body, request


def run_request(body: UpstreamResponseBody, asked: ResponsesRequest) -> RunRequest:
    """Return the request for the run of a relayed call: of the body, it stores the user's last words only."""
    return RunRequest(
        agent=body.model,
        messages=({"role": "user", "content": storable(_question(body)[:MOST_SHOWN])},),
        max_tokens=asked.max_tokens,
        end_user=body.safety_identifier or body.user,
        on_disconnect="cancel",
        relayed=True,
        door="responses/stream" if asked.stream else "responses/invoke",
    )


def _counted(body: UpstreamResponseBody, price: Price, written: bytes) -> list[dict[str, Any]]:
    """Return the whole body as one text, whose bytes bound the prompt; or a block that they do not bound.

    Raises `Invalid` for an item whose tokens nothing bounds.
    """
    items = [] if isinstance(body.input, str) else body.input
    kinds = set[str]()
    for number, item in enumerate(items):
        kinds |= _kinds(item, f"/input/{number}")
    if kinds <= TEXTUAL:
        return [{"type": "text", "text": written.decode()}]
    if price.context_tokens is None:
        raise fault(
            "/input", "has an image, a file or reasoning, and the price of this model has no context_tokens"
        )
    return [{"type": "image"}]


def _kinds(item: dict[str, Any], where: str) -> set[str]:
    """Return the types of an item and its parts. Raises `Invalid` for one that is not offered."""
    kind = item.get("type") or "message"
    kinds = {str(kind)}
    for name in ("content", "summary", "output"):
        parts = item.get(name)
        if isinstance(parts, list):
            kinds |= {str(part.get("type")) if isinstance(part, dict) else "" for part in parts}
            if any(isinstance(part, dict) and part.get("file_id") is not None for part in parts):
                raise fault(f"{where}/{name}", NO_FILE_ID)
        elif parts is not None and not isinstance(parts, str):
            raise fault(f"{where}/{name}", "must be a text or a list of parts")
    if item.get("encrypted_content") is not None:
        kinds.add("reasoning_text")  # its bytes are not those of its text
    if other := kinds - TEXTUAL - COUNTED_BY_CONTEXT:
        raise fault(where, f"has a type that is not offered here: {min(other)[:64]}")
    return kinds


def _question(body: UpstreamResponseBody) -> str:
    if isinstance(body.input, str):
        return body.input
    users = (item for item in reversed(body.input) if item.get("role") == "user")
    return next(filter(None, map(_text, users)), "")


def _text(item: dict[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content or () if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
