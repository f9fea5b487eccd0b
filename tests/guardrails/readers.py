"""Strict second readers: which hosts a Markdown reader and a browser find in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from service.guardrails.hosts import Hosts

_HTML = [MarkdownIt("commonmark", {"html": with_html}) for with_html in (True, False)]
_ATTRIBUTE = re.compile(r"""(?:href|src|srcset|action|content|url)\s*[=(]\s*["']?([^"'>)]+)""", re.IGNORECASE)
_SCHEME = re.compile(r"[\x00-\x20]*([a-zA-Z][a-zA-Z0-9+.-]*):(.*)", re.S)
_AUTHORITY = re.compile(r"[\x00-\x20]*//+([^/?#]*)")
_BARE = re.compile(r"(?:https?|ftp)://[^\s<>\"]+|(?<![\w-])www\.\w[^\s<>\"]+", re.IGNORECASE)


def unlisted(text: str, hosts: Hosts) -> list[str]:
    """Return the addresses in a text that lead to a host not in `hosts`, or to none that a reader knows."""
    return [url for url in _urls(text) if _leads_away(url, hosts)]


def _urls(text: str) -> Iterator[str]:
    yield from _BARE.findall(text)
    for reader in _HTML:
        yield from _targets(reader.parse(text))


def _targets(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        yield from _targets(token.children or ())
        for name in ("href", "src"):
            if value := token.attrGet(name):
                yield str(value)
        if token.type in ("html_inline", "html_block"):
            yield from _ATTRIBUTE.findall(token.content)


def _leads_away(url: str, hosts: Hosts) -> bool:
    """As a browser reads it: without tabs and line ends, a backslash as a slash, the host after the last `@`."""
    url = re.sub(r"[\t\r\n]", "", url).replace("\\", "/")
    if scheme := _SCHEME.match(url):
        if scheme[1].lower() not in ("http", "https", "ftp"):
            return True
        url = "//" + scheme[2].lstrip("/")
    if url.startswith("www."):
        url = "//" + url
    authority = _AUTHORITY.match(url)
    if authority is None:
        return False
    host = re.sub(r":\d+$", "", authority[1].rpartition("@")[2]).rstrip(".,;:!?)*_'\"]| ")
    return bool(host) and host not in hosts
