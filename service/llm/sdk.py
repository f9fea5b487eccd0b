"""Official SDK, and the transport under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anthropic as anthropic
import httpx2

from service.llm.connect import Proxy
from service.llm.model_json import parse
from service.llm.transport import ModelTransport

_OF_PLATFORMS: Mapping[str, Any] = {
    "max_retries": 0,
    "open_telemetry": False,
    "default_headers": {"Accept-Encoding": "identity"},  # decompression costs more than it saves
}


def transport_to(address: str, max_connections: int) -> ModelTransport:
    """Build the transport to the model's address, by the environment's HTTP proxy where one applies."""
    parts, proxies = urlsplit(address), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    through = Proxy.of(proxy) if proxy and not proxy_bypass(parts.netloc) else None
    return ModelTransport(max_connections, through)


def unsent() -> httpx2.Client:
    """Build an HTTP client that sends nothing: the SDK over it only writes its requests."""
    return httpx2.Client(
        transport=httpx2.MockTransport(lambda request: httpx2.Response(200)), trust_env=False
    )


def request_of(sdk: anthropic.Anthropic, path: str) -> httpx2.Request:
    """Return the POST request that the SDK makes: its address, headers and credentials. Nothing is sent."""
    with unsent() as client:
        return message_of(sdk.with_options(http_client=client), path, b"{}", {})


def message_of(
    sdk: Any, path: str, body: Mapping[str, Any] | bytes, options: Mapping[str, Any]
) -> httpx2.Request:
    """Return the POST request that an SDK over `unsent` writes, and signs, for a body."""
    given = {"content": body} if isinstance(body, bytes) else {"body": body}
    request: httpx2.Request = sdk.post(path, cast_to=httpx2.Response, options=options, **given).request
    return request


def bedrock(region: str, base_url: str) -> anthropic.AnthropicBedrock:
    """Build the SDK's client of Bedrock, with the key of Bedrock or the credentials that it finds."""
    return anthropic.AnthropicBedrock(
        aws_region=region or None,
        base_url=base_url or None,
        **_OF_PLATFORMS,
        http_client=unsent(),
    )


def mantle(region: str, base_url: str) -> anthropic.AnthropicBedrockMantle:
    """Build the SDK's client of Bedrock Mantle, with the key of Bedrock or the credentials that it finds."""
    return anthropic.AnthropicBedrockMantle(
        aws_region=region or None,
        base_url=base_url or None,
        **_OF_PLATFORMS,
        http_client=unsent(),
    )


def vertex(region: str, project: str, base_url: str) -> anthropic.AnthropicVertex:
    """Build the SDK's client of Vertex AI, with the credentials that google-auth finds."""
    return anthropic.AnthropicVertex(
        region=region, project_id=project, base_url=base_url or None, **_OF_PLATFORMS, http_client=unsent()
    )


def status_error(
    request: httpx2.Request, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> anthropic.APIStatusError:
    """Read a refusal as the SDK does: its type and code are in the body."""
    try:
        told = parse(body)
    except ValueError:
        told = None
    return anthropic.APIStatusError(
        "", response=httpx2.Response(status, headers=headers, request=request), body=told
    )
