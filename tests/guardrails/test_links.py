"""Links taken out of text: all disguises, any chunking, and nothing of what may stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.guardrails.hosts import Hosts, hosts_in
from service.guardrails.links import LONGEST, MARK, LinkFilter, without_links
from tests.guardrails.readers import unlisted

HOSTS = Hosts.of(["good.example", "*.harbor.test"])
PIECES = [
    *(
        "https://evil.example/x",
        "https:",
        "//",
        "\\",
        "evil.example",
        "evil.io/p",
        "/x",
        "?q=1",
        "good.example",
    ),
    *(
        "https://good.example/a",
        "a.harbor.test",
        "[",
        "](",
        ")",
        "![",
        "]:",
        " ",
        "\n",
        "\n\n",
        "<",
        ">",
        '<a href="',
    ),
    *(
        '"',
        "'",
        "@",
        "&#104;",
        "&colon;",
        "%2e",
        "．",
        "：",
        "／",
        "。",
        "\u200b",
        "例え",
        ".jp",
        "www.",
        "javascript:",
    ),
    *(
        "mailto:",
        "data:text/html,x",
        "a",
        "http",
        "s",
        "ht",
        "tps",
        ":",
        "(",
        "*",
        "_",
        "`",
        "|",
        ".",
        ",",
        "xn--a",
    ),
    *("<img src=", "&sol;", "\\/", "\\:", "\t", "foo:bar", "<evil:foo>", "&lt;", "日本語"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def in_chunks(text: str, sizes: list[int]) -> str:
    links, out, at = LinkFilter(HOSTS), [], 0
    for size in [*sizes, len(text)]:
        out.append(links.feed(text[at : at + size]))
        at += size
    return "".join(out) + links.close()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("See [it](https://evil.example/x?d=1).", "See [it] [link removed]."),
        ("![a](https://evil.example/x.png) b", "![a] [link removed] b"),
        ('[x](<https://evil.example/a> "t") b', '[x] [link removed] "t") b'),
        ("[x]: https://evil.example/a", "[x]: [link removed]"),
        ("<https://evil.example/a> <b@evil.example>", "[link removed] [link removed]"),
        ("https://evil.example/a, then", "[link removed], then"),
        ("www.evil.example evil.io/x?y evil.example", "[link removed] [link removed] [link removed]"),
        ("ftp://evil.io //evil.io/x mailto:a@evil.io", "[link removed] [link removed] [link removed]"),
        ("javascript:fetch() data:text/html,x", "[link removed] () [link removed]"),
        ("[x](foo:bar) foo:bar", "[x] [link removed] foo:bar"),
        ("https://good.example@evil.io/x", "[link removed]"),
        ("https://good.example%2f@evil.io/", "[link removed]"),
        ("https://good.example:x@evil.io/ https://good.example.evil.io/", "[link removed] [link removed]"),
        (
            "https://good.example'x.evil.io https://good.example)@evil.io",
            "[link removed]'[link removed] [link removed])@evil.io",
        ),
        ("ht\u200btps://evil.io ｈｔｔｐｓ：／／ｅｖｉｌ．ｉｏ", "[link removed] [link removed]"),
        ("&#104;ttps&colon;//evil.io \\/\\/evil.io", "[link removed] [link removed]"),
        ("https:\\\\evil.io /\\evil.io", "[link removed] [link removed]"),
        ("[x](\n https://evil.io )", "[x](\n [link removed] )"),
        (
            "[a [b](https://evil.io/1)](https://good.example/2)",
            "[a [b] [link removed]](https://good.example/2)",
        ),
        ('<img src="//evil/x"> <a href=javascript:x>', '<img src="[link removed]"> <a href=[link removed]>'),
        ('<a href="java\nscript:x">', '<a href="java\n[link removed]">'),
        (
            "请看[这里](https://evil.io/中)，谢谢。例え.jp/x",
            "请看[这里] [link removed]，谢谢。[link removed]",
        ),
        ('{"url":"https:\\/\\/evil.io/x","n":1}', '{"url":"[link removed]","n":1}'),
        (
            "evil.io, logging.info(x) a＠evil.io/ a%40evil.ru",
            "[link removed], logging.info(x) a＠[link removed] a%40[link removed]",
        ),
        ("_evil.com_ evil\x0b.io/x", "[link removed] [link removed]"),
        ('<a href="https://good.example x@evil.io">', '<a href="[link removed] x@evil.io">'),
        ('<a href="https://good.example.\nio/x">', '<a href="[link removed].\nio/x">'),
        ("[x](<https://good.example x@evil.io>)", "[x] [link removed] x@evil.io>)"),
        ('<a title=">" href="sms:1">', '<a title=">" href="[link removed]">'),
        ('<a title="&quot;>" href="\nsms:1">', '<a title="&quot;>" href="\n[link removed]">'),
        ("https://good.example/a\x7fevil.com.", "https://good.example/a\x7f[link removed]."),
        ("**https://evil.io** a*https://good.example/b*", "**[link removed]** a*https://good.example/b*"),
    ],
)
def test_links_are_replaced_by_a_mark_and_words_stay(text: str, cleaned: str) -> None:
    assert without_links(text, HOSTS) == cleaned
    assert in_chunks(text, [1] * len(text)) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "https://good.example https://good.example:8443/a?b=c#d. [x](https://good.example/y)",
        "good.example/x a.harbor.test/y mailto:a@good.example <a@b.harbor.test>"[:52],
        "See knowledge/rules.md#carrying, v1.2/3, and/or, e.g. 10:30 Note: a::b x/y.",
        "Vue.js/React.js, app.py, user@host, bob@evil.example, 3.14, // comment, C:\\Users",
        "今天很好。明天也好：是的，谢谢（再见）",
        "if a < b and c > d: print(f(x)[0])",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert without_links(text, HOSTS) == text


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 5), max_size=30))
def test_any_chunking_gives_the_same_text(text: str, sizes: list[int]) -> None:
    assert in_chunks(text, sizes) == without_links(text, HOSTS)


@settings(max_examples=1_000, deadline=None)
@given(TEXTS)
def test_no_unlisted_host_is_a_link_to_a_strict_reader(text: str) -> None:
    assert unlisted(without_links(text, HOSTS), HOSTS) == []


@pytest.mark.parametrize("before", [0, LONGEST - 9, LONGEST - 1, LONGEST, LONGEST + 7, 3 * LONGEST])
@pytest.mark.parametrize("link", ["https://evil.example/x", "evil.io/x", "https://good.example.evil.io/"])
def test_a_word_that_is_too_long_lets_no_link_out(before: int, link: str) -> None:
    text = "a" * before + "," + link + "b" * LONGEST + " end"
    cleaned = without_links(text, HOSTS)
    assert unlisted(cleaned, HOSTS) == [] and "evil.io" not in cleaned
    assert cleaned.startswith("a" * before) and cleaned.endswith(" end")
    assert in_chunks(text, [7] * 2_000) == cleaned


def test_a_long_word_without_a_link_stays_and_is_not_held_back() -> None:
    links, text = LinkFilter(HOSTS), "a" * 5 * LONGEST
    assert len(links.feed(text)) > 4 * LONGEST
    assert without_links(text, HOSTS) == text


def test_only_what_may_become_a_link_is_held_back() -> None:
    links = LinkFilter(HOSTS)
    assert [links.feed(piece) for piece in ("See ", "https", "://evil.io/x", " or", " 今天很好")] == [
        "See ",
        "",
        "",
        MARK + " ",
        "or 今天很好",
    ]
    assert links.removed == 1


def test_hosts_are_compared_as_they_are_written() -> None:
    assert "GOOD.example" in HOSTS and "a.b.harbor.test" in HOSTS
    assert "harbor.test" not in HOSTS and "fass.example" not in Hosts.of(["faß.example"])
    assert hosts_in("Ask https://Docs.example/x or a@mail.test.") == {"docs.example", "mail.test"}
