"""Official SDK, and the transport under it."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anthropic as anthropic
import httpx2

from service.llm.connect import Proxy
from service.llm.model_json import parse
from service.llm.transport import ModelTransport


def transport_to(address: str, max_connections: int) -> ModelTransport:
    """Build the transport to the model's address, by the environment's HTTP proxy where one applies."""
    parts, proxies = urlsplit(address), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    through = Proxy.of(proxy) if proxy and not proxy_bypass(parts.netloc) else None
    return ModelTransport(max_connections, through)


def request_of(sdk: anthropic.Anthropic, path: str) -> httpx2.Request:
    """Return the POST request that the SDK makes: its address, headers and credentials. Nothing is sent."""
    nowhere = httpx2.MockTransport(lambda request: httpx2.Response(200))
    with httpx2.Client(transport=nowhere, trust_env=False) as client:
        sdk = sdk.with_options(http_client=client)
        return sdk.post(path, cast_to=httpx2.Response, content=b"{}").request


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
