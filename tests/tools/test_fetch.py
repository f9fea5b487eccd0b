"""Fetch of pages from real servers on this machine, which is listed as an operator lists a host of their own."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from service.tools import ToolContext, ToolResult, ToolRunner
from service.tools.fetch import FAILURES, MAX_BYTES, MAX_HOSTS, Fetcher, FetchFailed, HostPauses, decoded
from service.tools.html_text import Unreadable, readable
from service.tools.sources.web import SHOWN, WebTools
from tests.infra.test_http import TRICKS, Peer, peers

__all__ = ["peers"]
MakeContext = Callable[..., ToolContext]
HTML = """<!doctype html><title>Harbor &amp; you</title><style>p {}</style><script>steal()</script>
<h1>Prices</h1><p>Crew costs <b>8.00</b> a month.</p><ul><li><a href="/plans#top">All plans</a></ul>
<table><tr><td>Crew<td>8.00<tr><td>Fleet<td>15.00</table>"""


def page(
    body: bytes | str, kind: str = "text/html; charset=utf-8", status: str = "200 OK", **more: str
) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = {
        "Content-Type": kind,
        "Content-Length": str(len(data)),
        **{k.replace("_", "-"): v for k, v in more.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data


@pytest.fixture
def serve(peers: list[Peer]) -> Iterator[Callable[..., str]]:
    def start(*pieces: bytes, pause: float = 0.0) -> str:
        peers.append(Peer(*pieces, pause=pause))
        return peers[-1].url

    yield start


def host_of(url: str) -> str:
    return url.removeprefix("http://").rstrip("/")


def fetch(url: str, seconds: float = 10) -> str:
    return Fetcher([host_of(url).split("/")[0]]).fetch(url, seconds).text


def test_html_becomes_text(serve: Callable[..., str]) -> None:
    url = serve(page(HTML))
    found = Fetcher([host_of(url)]).fetch(url, 10)
    assert (found.title, found.url) == ("Harbor & you", url)
    assert (
        "Prices" in found.text and "Crew costs 8.00 a month." in found.text and "Fleet  15.00" in found.text
    )
    assert f"[All plans]({url}plans#top)" in found.text
    assert "steal" not in found.text and "p {}" not in found.text


def test_the_request_names_no_user_and_holds_no_secret(serve: Callable[..., str], peers: list[Peer]) -> None:
    fetch(serve(page("ok", "text/plain")))
    head = peers[0].got[0].decode().lower()
    assert head.startswith("get / http/1.1") and "user-agent: slipway-fetch/1" in head
    assert "cookie" not in head and "authorization" not in head


@pytest.mark.parametrize(
    "url", [*TRICKS, "ftp://example.com/", "https://user:word@example.com/", "file:///etc/passwd"]
)
def test_addresses_of_our_own_are_refused(url: str) -> None:
    with pytest.raises(FetchFailed):
        Fetcher().fetch(url, 5)


def test_a_listed_host_is_listed_with_its_port(serve: Callable[..., str]) -> None:
    url, other = serve(page("one", "text/plain")), serve(page("two", "text/plain"))
    fetcher = Fetcher([host_of(url)])
    assert fetcher.fetch(url, 5).text == "one"
    with pytest.raises(FetchFailed, match="public address"):
        fetcher.fetch(other, 5)


def test_redirects_on_one_host_are_followed(serve: Callable[..., str], peers: list[Peer]) -> None:
    url = serve(page("", status="302 Found", Location="/again"))
    with pytest.raises(FetchFailed, match="more than 5 times"):
        fetch(url)
    assert [request.split(b" ")[1] for request in peers[0].got] == [b"/", *[b"/again"] * 5]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/", "http://169.254.169.254/", "//localhost/", "file:///etc/passwd"]
)
def test_redirects_elsewhere_are_told_and_not_followed(serve: Callable[..., str], target: str) -> None:
    with pytest.raises(FetchFailed, match="has moved to"):
        fetch(serve(page("", status="301 Moved", Location=target)))


def test_a_page_is_bounded_as_sent_and_as_decompressed(serve: Callable[..., str]) -> None:
    large = b"x" * (MAX_BYTES + 1)
    bomb = gzip.compress(b"\0" * 64 * 1024 * 1024)
    assert len(bomb) < MAX_BYTES
    for answer in (
        page(large, "text/plain"),
        page(large, "text/plain", Content_Length=""),
        page(bomb, "text/plain", Content_Encoding="gzip"),
    ):
        with pytest.raises(FetchFailed, match="larger than 2 MiB"):
            fetch(serve(answer))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_pages_are_read(serve: Callable[..., str], coding: str) -> None:
    packed = gzip.compress(b"hello") if coding == "gzip" else zlib.compress(b"hello")
    assert fetch(serve(page(packed, "text/plain", Content_Encoding=coding))) == "hello"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page("%PDF-1.7", "application/pdf"), "application/pdf"),
        (page("x", "image/png"), "image/png"),
        (page("x", "application/octet-stream"), "octet-stream"),
        (page(b"a\0b", "text/plain"), "not text"),
        (page("x", "text/plain", Content_Encoding="br"), "compressed by br"),
        (page("no gzip", "text/plain", Content_Encoding="gzip"), "decompressed"),
        (page("gone", status="404 Not Found"), "answered 404"),
        (page("", status="302 Found"), "answered 302"),
        (b"not http at all\r\n\r\n", "No answer"),
    ],
    ids=["pdf", "image", "binary", "nul", "brotli", "broken", "404", "no location", "garbage"],
)
def test_what_cannot_be_read_is_told(serve: Callable[..., str], answer: bytes, words: str) -> None:
    with pytest.raises(FetchFailed, match=words):
        fetch(serve(answer))


def test_a_slow_page_is_given_up(serve: Callable[..., str]) -> None:
    url = serve(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", *[b"x"] * 100, pause=0.1)
    with pytest.raises(FetchFailed, match="No answer within"):
        fetch(url, seconds=0.5)


def test_a_failing_host_is_paused(serve: Callable[..., str], peers: list[Peer]) -> None:
    url = serve(page("down", status="503 Unavailable"))
    fetcher = Fetcher([host_of(url)])
    for _ in range(FAILURES):
        with pytest.raises(FetchFailed, match="answered 503"):
            fetcher.fetch(url, 5)
    with pytest.raises(FetchFailed, match="has failed repeatedly"):
        fetcher.fetch(url, 5)
    assert len(peers[0].got) == FAILURES


def test_pauses_are_bounded_and_an_answer_ends_them() -> None:
    pauses = HostPauses()
    for number in range(MAX_HOSTS + FAILURES):
        pauses.told(f"h{number}", failed=True)
    assert len(pauses._breakers) == MAX_HOSTS
    for _ in range(FAILURES - 1):
        pauses.told("one", failed=True)
    pauses.told("one", failed=False)
    pauses.told("one", failed=True)
    pauses.check("one")


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("für".encode(), "", "für"),
        ("für".encode("cp1252"), "", "für"),
        ("für".encode("cp1252"), "iso-8859-1", "für"),
        ("für".encode("utf-16"), "utf-8", "für"),
        (b"\xef\xbb\xbfx", "", "x"),
        ("привет".encode("cp1251"), "windows-1251", "привет"),
        (b"<meta charset='shift_jis'>" + "日本".encode("shift_jis"), "", "<meta charset='shift_jis'>日本"),
        (b"x-9", "punycode", "x-9"),
        (b"eJw=", "base64", "eJw="),
        (b"x\xff", "utf-8", "x\ufffd"),
    ],
)
def test_charsets(data: bytes, charset: str, text: str) -> None:
    assert decoded(data, charset, html=True) == text


def test_hostile_html_holds_no_thread_of_ours_for_long() -> None:
    hostile = "<p " + " ".join(f"a{n}=1" for n in range(100_000)) + ">"
    with pytest.raises(Unreadable):
        readable(hostile, "https://example.com/", seconds=0.5)
    assert readable("<div>" * 100_000 + "x", "https://example.com/").text in ("", "x")
    assert readable("", "https://example.com/").text == ""


def call(url: str, context: ToolContext, hosts: list[str], **more: int) -> ToolResult:
    return ToolRunner().call(WebTools(hosts).tools(None)["fetch"], {"url": url, **more}, context)  # type: ignore[arg-type]


def test_the_tool_gives_a_source_and_the_rest_of_a_long_page(
    serve: Callable[..., str], context: MakeContext
) -> None:
    text = "".join(f"line {number}\n" for number in range(3_000))
    url = serve(page(text, "text/plain"))
    first = call(url, context(), [host_of(url)])
    told = json.loads(first.content)
    assert told["characters"] == f"0 to {SHOWN} of {len(text)}" and len(first.content) < 20_000
    assert first.sources[0]["uri"] == url and first.sources[0]["quote"] in text
    rest = json.loads(call(url, context(), [host_of(url)], start=SHOWN).content)
    assert told["results"][0]["text"] + rest["results"][0]["text"] == text[: 2 * SHOWN]


def test_the_tools_failure_is_for_the_model(context: MakeContext) -> None:
    result = call("http://127.0.0.1/", context(), [])
    assert (result.ok, result.content) == (False, "The address must be a public address.")


def test_the_time_of_a_zone(context: MakeContext) -> None:
    current_time = WebTools().tools(None)["current_time"]  # type: ignore[arg-type]
    told = json.loads(ToolRunner().call(current_time, {"timezone": "Asia/Kolkata"}, context()).content)
    assert (
        told["time"].endswith("+05:30") and told["utc"].endswith("Z") and told["timezone"] == "Asia/Kolkata"
    )
    assert told["weekday"] in {time.strftime("%A", time.gmtime(day * 86_400)) for day in range(7)}


@pytest.mark.parametrize(
    "zone", ["Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "America", "a\0b", "x" * 65]
)
def test_no_such_zone(context: MakeContext, zone: str) -> None:
    current_time = WebTools().tools(None)["current_time"]  # type: ignore[arg-type]
    assert not ToolRunner().call(current_time, {"timezone": zone}, context()).ok
