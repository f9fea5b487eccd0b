"""The official SDK: its client as Slipway uses it, and about a third of its modules.

Most of the others are types of doors that are never used here. They are loaded when somebody asks for them, such as a
tool of an agent's.
"""

from __future__ import annotations

from functools import cache, cached_property
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from service.llm.connect import Proxy
from service.llm.later import imports_wait
from service.llm.transport import ModelHttp, ModelTransport

CATALOGUES = ("anthropic.types", "anthropic.resources")  # packages that only name what is in them
CLOUD = "anthropic.lib.foundry"  # another cloud's client, which wants everything at once


def _can_wait(package: str, module: str) -> bool:
    return package.startswith(CATALOGUES) or module == CLOUD


with imports_wait("anthropic", _can_wait):
    import anthropic as anthropic
    import anthropic.resources.messages  # what is used of it is loaded before the workers are forked
    import anthropic.resources.models
    from anthropic._models import FinalRequestOptions  # the type of `Anthropic.request`'s options


class Sdk(anthropic.Anthropic):
    """The SDK, which puts together once what is the same for every request: its options, headers and address."""

    def create(self, body: bytes, waits: httpx2.Timeout) -> httpx2.Response:
        """`POST /v1/messages`, by the SDK's own way for a body that is ready; the answer once its head is there."""
        options = self._options.model_copy(update={"content": body, "timeout": waits})
        return self.request(httpx2.Response, options, stream=True)

    @cached_property
    def _options(self) -> FinalRequestOptions:
        return FinalRequestOptions.construct(method="post", url="/v1/messages")

    @cached_property
    def _headers(self) -> httpx2.Headers:
        return super()._build_headers(self._options)

    def _build_headers(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Headers:
        waits = options.timeout
        if options.url != self._options.url or not isinstance(waits, httpx2.Timeout):
            return super()._build_headers(options, retries_taken=retries_taken)
        headers = httpx2.Headers(self._headers, encoding="utf-8")
        headers["x-stainless-timeout"] = headers["x-stainless-read-timeout"] = str(waits.read)
        return headers

    @cache  # noqa: B019 - there is one of it, for as long as the process lives
    def _prepare_url(self, url: str) -> httpx2.URL:
        return super()._prepare_url(url)


def http_client(address: str, max_connections: int) -> ModelHttp:
    """By way of the environment's HTTP proxy where one applies."""
    parts, proxies = urlsplit(address), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    through = Proxy.of(proxy) if proxy and not proxy_bypass(parts.netloc) else None
    return ModelHttp(ModelTransport(max_connections, through))
