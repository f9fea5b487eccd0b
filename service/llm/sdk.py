"""Official SDK, and the HTTP client passed to it."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anthropic as anthropic
import httpx2

from service.llm.connect import Proxy
from service.llm.transport import ModelTransport


def http_client(address: str, max_connections: int) -> httpx2.Client:
    """Build the HTTP client for the model's address, using the environment's HTTP proxy where one applies."""
    parts, proxies = urlsplit(address), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    through = Proxy.of(proxy) if proxy and not proxy_bypass(parts.netloc) else None
    return httpx2.Client(transport=ModelTransport(max_connections, through), trust_env=False)
