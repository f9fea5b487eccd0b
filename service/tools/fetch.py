"""Fetch of a page by its URL: public addresses only, bounded in time, size and redirects; failing hosts are paused.

A redirect to another host is told and not followed: the next call passes the agent's policies with the new address.
"""

from __future__ import annotations

import codecs
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

from circuitbreaker import CircuitBreaker  # type: ignore[import-untyped]

from service.infra.http import AddressRefused, NoAnswer, SafeClient, StreamedAnswer
from service.tools.html_text import Page, Unreadable, readable

SECONDS = 20.0  # for a call, with all its redirects
MAX_HOPS = 5  # redirects followed
MAX_BYTES = 2 * 1024 * 1024  # of a page, as it is sent and as it is decompressed
MAX_URL = 2_000  # characters
FAILURES, RECOVERY = 3, 30.0  # failures in a row after which a host is paused, and for how many seconds
MAX_HOSTS = 1_000  # hosts whose failures are remembered
HEADERS = {
    "User-Agent": "Slipway-fetch/1",
    "Accept": "text/html, application/xhtml+xml, text/plain, application/json, application/xml;q=0.9, text/*;q=0.8",
    "Accept-Encoding": "gzip, deflate",
}
_READABLE = re.compile(r"text/[\w.+-]+|application/(?:[\w.-]+\+)?(?:json|xml)")
_HTML = ("text/html", "application/xhtml+xml")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Python's names; others, such as punycode, take a time that is the square of the length.
_CHARSETS_WORDS = (
    "utf-8 utf-16 utf-16-le utf-16-be ascii iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 "
    "iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-13 iso8859-14 iso8859-15 iso8859-16 cp866 cp874 "
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8-r koi8-u mac-roman gb2312 gbk "
    "gb18030 big5 big5hkscs euc_jp shift_jis cp932 iso2022_jp euc_kr cp949"
)
_CHARSETS = frozenset(_CHARSETS_WORDS.split())


class FetchFailed(Exception):
    """Raised for a page that was not fetched. The message is for the model."""


class Fetched(NamedTuple):
    """Page as read. `url` is the address after redirects; `title` is empty for anything but HTML."""

    url: str
    title: str
    text: str


class _Down(Exception):
    """Failure passed to the breaker's library."""


class Fetcher:
    """Thread-safe; one per process. `hosts` of the operator's own network may be read too: `name`, or `name:port`."""

    def __init__(self, hosts: Collection[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._public = SafeClient(allow_private=False, seconds=SECONDS)
        self._listed = SafeClient(allow_private=True, seconds=SECONDS)
        self._pauses = HostPauses()

    def fetch(self, url: str, seconds: float) -> Fetched:
        """Fetch a page within `seconds`, at most `SECONDS`. Raises `FetchFailed`."""
        deadline = time.monotonic() + min(SECONDS, seconds)
        for _ in range(MAX_HOPS + 1):
            url = urldefrag(url).url
            parts = _parts(url)
            found = self._get(url, parts, deadline)
            if isinstance(found, Fetched):
                return found
            target = urljoin(url, found)[:MAX_URL]
            if not _same_host(parts, _parts(target)):
                raise FetchFailed(f"The page has moved to {target}: fetch that address if you need it.")
            url = target
        raise FetchFailed(f"The page was redirected more than {MAX_HOPS} times.")

    def _get(self, url: str, parts: SplitResult, deadline: float) -> Fetched | str:
        """Return the page, or where it redirects to."""
        host = parts.netloc.lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._pauses.check(host)
        listed = f"{parts.hostname}:{port}" in self._hosts or (
            parts.hostname in self._hosts and port in (80, 443)
        )
        client = self._listed if listed else self._public
        try:
            with client.stream("GET", url, HEADERS, seconds=_left(deadline)) as answer:
                self._pauses.told(host, failed=answer.status >= 500 or answer.status == 429)
                if answer.status in (301, 302, 303, 307, 308) and answer.headers.get("location"):
                    return answer.headers["location"]
                if not 200 <= answer.status < 300:
                    raise FetchFailed(f"{host} answered {answer.status}.")
                kind, charset = _media_type(answer)
                data = _body(answer)
        except AddressRefused as refused:
            raise FetchFailed(str(refused)) from None
        except NoAnswer as error:
            self._pauses.told(host, failed=True)
            raise FetchFailed(f"{host}: {error}") from None
        page = _page(decoded(data, charset, html=kind in _HTML), kind, url, deadline)
        return Fetched(url, page.title, page.text)


class HostPauses:
    """Circuit breakers by host, the `MAX_HOSTS` last used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._breakers: OrderedDict[str, CircuitBreaker] = OrderedDict()

    def check(self, host: str) -> None:
        """Raise `FetchFailed` while a host is paused."""
        with self._lock:
            breaker = self._breakers.get(host)
            if breaker is not None and breaker.opened:
                raise FetchFailed(
                    f"{host} has failed repeatedly: try again in {breaker.open_remaining:.0f} s."
                )

    def told(self, host: str, *, failed: bool) -> None:
        """Count an answer, or a failure."""
        with self._lock:
            breaker = self._breakers.pop(host, None) or CircuitBreaker(FAILURES, RECOVERY, _Down, name=host)
            if failed:
                with suppress(_Down), breaker:
                    raise _Down
                self._breakers[host] = breaker
            while len(self._breakers) > MAX_HOSTS:
                self._breakers.popitem(last=False)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchFailed("The address is not a URL.") from None
    return parts


def _same_host(one: SplitResult, other: SplitResult) -> bool:
    """Return whether a redirect may be followed: the same host, and never from TLS to plain text."""
    ports = {(parts.scheme, parts.port or (443 if parts.scheme == "https" else 80)) for parts in (one, other)}
    upgrade = (one.scheme, other.scheme) == ("http", "https") and {port for _, port in ports} == {80, 443}
    return one.hostname == other.hostname and (len(ports) == 1 or upgrade)


def _media_type(answer: StreamedAnswer) -> tuple[str, str]:
    """Return media type and charset. Raises `FetchFailed` for a type that is no text."""
    kind, _, parameters = answer.headers.get("content-type", "text/plain").partition(";")
    kind = kind.strip().lower()
    if not _READABLE.fullmatch(kind):
        raise FetchFailed(
            f"The page is {kind[:80] or 'of no type'}: only text, HTML, JSON and XML can be read."
        )
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]{1,40})", parameters, re.IGNORECASE)
    return kind, charset[1] if charset else ""


def _body(answer: StreamedAnswer) -> bytes:
    """Read the body, decompressed. Raises `FetchFailed` for one that is too large, before it is unpacked whole."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return _bounded(answer.parts)
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise FetchFailed(f"The page is compressed by {coding[:40]}, which cannot be read.")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib
    sent, found = 0, bytearray()
    try:
        for part in answer.parts:
            sent += len(part)
            found += unpack.decompress(part, MAX_BYTES + 1 - len(found))
            if sent > MAX_BYTES or len(found) > MAX_BYTES:
                raise FetchFailed(_TOO_LARGE)
    except zlib.error:
        raise FetchFailed("The page cannot be decompressed.") from None
    return bytes(found)


_TOO_LARGE = f"The page is larger than {MAX_BYTES // 1024 // 1024} MiB."


def _bounded(parts: Iterable[bytes]) -> bytes:
    found = bytearray()
    for part in parts:
        found += part
        if len(found) > MAX_BYTES:
            raise FetchFailed(_TOO_LARGE)
    return bytes(found)


def decoded(data: bytes, charset: str, *, html: bool) -> str:
    """Decode by byte order mark, header, HTML's own declaration, or as UTF-8, else Windows-1252."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    declared = _META.search(data[:2048]) if html and not charset else None
    name = charset or (declared[1].decode() if declared else "")
    try:
        name = codecs.lookup(name).name if name else "utf-8"
    except (LookupError, UnicodeError, ValueError):
        name = "utf-8"
    if name in ("iso8859-1", "ascii"):  # as browsers read them
        name = "cp1252"
    if name in _CHARSETS and name != "utf-8":
        return data.decode(name, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8" if charset else "cp1252", "replace")


def _page(text: str, kind: str, url: str, deadline: float) -> Page:
    if kind not in _HTML:
        if "\0" in text:
            raise FetchFailed("The page is not text.")
        return Page("", text)
    try:
        return readable(text, url, _left(deadline))
    except Unreadable as error:
        raise FetchFailed(str(error)) from None


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise FetchFailed("The page did not come in time.")
    return seconds
