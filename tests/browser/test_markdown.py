"""Markdown as the page shows it: what is written right, what is never let through, and what is drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.attacks import ATTACKS
from tests.browser.conftest import Visit
from tests.browser.echo import Echo
from tests.conftest import RedisServer, Slipway, slipway_server

pytestmark = pytest.mark.browser
DRAW = """async ([text, size]) => {
    const { Draft, markdown } = await import(new URL("markdown.js", document.querySelector("script").src));
    const [place, whole] = [document.createElement("div"), document.createElement("div")];
    document.body.append(place);
    whole.append(...markdown(text));
    if (!size) return [whole.innerHTML];
    const draft = new Draft(place);
    let [first, kept] = [null, true];
    for (let end = 0; end < text.length + size; end += size) {
        draft.draw(text.slice(0, end));
        first ??= place.children.length > 1 ? place.firstChild : null;
        kept &&= !first || first === place.firstChild;
    }
    const grown = place.innerHTML;
    draft.finish(text);
    return [whole.innerHTML, grown, place.innerHTML, kept];
}"""
# What of a live document is neither an element nor an attribute nor an address that text may become.
FAULTS = """async (attacks) => {
    const { markdown } = await import(new URL("markdown.js", document.querySelector("script").src));
    const TAGS = /^(P|H[3-6]|UL|OL|LI|BLOCKQUOTE|PRE|CODE|A|STRONG|EM|S|TABLE|THEAD|TBODY|TR|TH|TD|DIV|HR|BR|SPAN)$/;
    const NAMES = /^(class|href|target|rel|start|tabindex|role|aria-label)$/;
    const faults = [];
    for (const attack of attacks) {
        const place = document.createElement("div");
        document.body.append(place);
        place.append(...markdown(attack));
        for (const one of place.querySelectorAll("*")) {
            const names = one.getAttributeNames().filter((name) => !NAMES.test(name));
            if (!TAGS.test(one.tagName) || names.length) faults.push([attack, one.outerHTML]);
            if (one.tagName !== "A") continue;
            const outside = /^(https?|mailto):$/.test(one.protocol) && one.host !== location.host;
            const apart = one.rel === "noopener noreferrer" && one.target === "_blank";
            if (!outside || !apart) faults.push([attack, one.outerHTML]);
        }
        place.querySelectorAll("a").forEach((one) => one.dispatchEvent(new MouseEvent("mouseover")));
    }
    await new Promise((resolve) => setTimeout(resolve, 300)); // a picture or script would be asked for by now
    return [faults, window.owned ?? null];
}"""
DOCUMENT = """# Refunds

Within **30 days**, *always*, and ~~never~~ by `POST /refund`. See https://docs.example/a_b_c and [the
page](https://docs.example "title"), or <mailto:help@docs.example>. Not `notes.md` or notes.md.

1. First
   - nested *one*
     1. deeper
   - nested two

   with a paragraph
2. Second

> Quoted
> > twice
>
> - and a list

| Plan | Price | |
| :--- | ----: | :-: |
| Basic | 1,200 | ✓ |
| `Pro` | [more](https://docs.example) | **yes** |

```python
def refund(order: str) -> None:
    print(f"<b>{order}</b>")
```

---

Line one\\
line two.
"""


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with Echo().standing() as model:
        yield model


@pytest.fixture(scope="module")
def repeater(scratch: Path, redis_server: RedisServer, echo: Echo) -> Iterator[Slipway]:
    """A Slipway whose agent answers with the question itself."""
    home = scratch / "repeater"
    with slipway_server(home, redis_server.url, echo.url, AGENTS_DIR=str(echo.agents(home))) as server:
        yield server


def drawn(visit: Visit, text: str, size: int = 0) -> list[Any]:
    """The HTML of `text`; with a `size`, also of it grown by so many characters at a time, and finished."""
    visit.page.goto(visit.url)
    found: list[Any] = visit.page.evaluate(DRAW, [text, size])
    return found


def test_no_attack_becomes_more_than_text(visit: Visit) -> None:
    assert len(set(ATTACKS)) >= 60
    visit.page.goto(visit.url)
    faults, owned = visit.page.evaluate(FAULTS, list(ATTACKS))
    assert (faults, owned) == ([], None)


def test_no_attack_in_an_answer_becomes_more_than_text(visit: Visit, repeater: Slipway) -> None:
    visit.url = repeater.url
    visit.sign_in()
    visit.ask("\n\n".join(attack for attack in ATTACKS if "\x00" not in attack), agent="writer")
    visit.page.locator(".answer > .facts").wait_for()
    found = visit.page.evaluate(
        """() => [...document.querySelectorAll("#turns script, #turns img, #turns svg, #turns iframe, #turns [style]")]
            .map((one) => one.outerHTML)"""
    )
    assert (found, visit.page.evaluate("window.owned ?? null")) == ([], None)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a *b* **c** ~~d~~ `e`", "<p>a <em>b</em> <strong>c</strong> <s>d</s> <code>e</code></p>"),
        ("## Two", "<h4>Two</h4>"),
        ("###### Six", "<h6>Six</h6>"),
        ("- a\n  - b\n    1. c", "<ul><li>a<ul><li>b<ol><li>c</li></ol></li></ul></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("a\\\nb", "<p>a<br>b</p>"),
        ("a\nb", "<p>a\nb</p>"),
        ("---", "<hr>"),
        ("```js\na < b\n```", '<pre tabindex="0"><code>a &lt; b</code></pre>'),
        ("    a\n\n    b", '<pre tabindex="0"><code>a\n\nb</code></pre>'),
        ("report.md and a.com", "<p>report.md and a.com</p>"),
        ("[a](b.md)", "<p>[a](b.md)</p>"),
        ("a <b>c</b>", "<p>a &lt;b&gt;c&lt;/b&gt;</p>"),
        ("&amp; &copy;", "<p>&amp; ©</p>"),
    ],
)
def test_blocks_and_words(visit: Visit, text: str, html: str) -> None:
    assert drawn(visit, text) == [html]


@pytest.mark.parametrize(
    ("text", "href", "words"),
    [
        ("[a *b*](https://c.example/d)", "https://c.example/d", "a <em>b</em>"),
        ("<https://c.example/d>", "https://c.example/d", "https://c.example/d"),
        ("https://c.example/d_e_f", "https://c.example/d_e_f", "https://c.example/d_e_f"),
        ("[a][b]\n\n[b]: http://c.example", "http://c.example", "a"),
        ("[a](mailto:b@c.example)", "mailto:b@c.example", "a"),
        ("![a b](https://c.example/d.png)", "https://c.example/d.png", "Picture: a b"),
        ("[![a](https://c.example/d.png)](https://e.example)", "https://e.example", "Picture: a"),
    ],
)
def test_links_open_elsewhere_and_pictures_are_not_loaded(
    visit: Visit, text: str, href: str, words: str
) -> None:
    link = f'<a href="{href}" target="_blank" rel="noopener noreferrer">{words}</a>'
    assert drawn(visit, text) == [f"<p>{link}</p>"]


def test_a_table_keeps_its_columns_and_scrolls_by_itself(visit: Visit) -> None:
    [html] = drawn(visit, "| a | b |\n| :- | -: |\n| `c` | **d** |")
    assert html == (
        '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table><thead><tr>'
        '<th class="left">a</th><th class="right">b</th></tr></thead><tbody><tr>'
        '<td class="left"><code>c</code></td><td class="right"><strong>d</strong></td></tr></tbody></table></div>'
    )


def test_a_sentence_in_a_table_that_scrolls_is_no_column_of_words(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    sentence = "by phone, on working days from nine to five"
    names = ["Plan", "Price per month", "Storage in all", "Support", "Where it is kept"]
    rows = [names, ["-"] * 5, ["Basic", "1,200.00", "10 GB", sentence, "Frankfurt"]]
    [html] = drawn(visit, "\n".join("| " + " | ".join(row) + " |" for row in rows))
    assert html.count('class="long"') == 1
    height = visit.page.evaluate(
        """async (rows) => {
            const { markdown } = await import(new URL("markdown.js", document.querySelector("script").src));
            const place = document.createElement("div");
            place.className = "text";
            place.append(...markdown(rows));
            document.querySelector("main").append(place);
            const [cell] = [...place.querySelectorAll("td")].filter((one) => one.textContent.startsWith("by phone"));
            return cell.offsetHeight / parseFloat(getComputedStyle(cell).lineHeight);
        }""",
        "\n".join("| " + " | ".join(row) + " |" for row in rows),
    )
    assert height < 4


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_growing_answer_draws_its_last_block_only(visit: Visit, size: int) -> None:
    whole, grown, finished, kept = drawn(visit, DOCUMENT, size)
    assert grown == whole
    assert finished == whole
    assert kept, "the first block was drawn again"
    assert whole.count("<a ") == 4 and "<table>" in whole and "&lt;b&gt;" in whole


def test_a_link_that_is_defined_later_is_one_in_the_end(visit: Visit) -> None:
    whole, grown, finished, _ = drawn(visit, "See [a].\n\nMore.\n\n[a]: https://b.example", 1)
    assert "<a " not in grown
    assert finished == whole and "<a " in whole


@pytest.mark.parametrize(
    "text", ["> " * 5_000, "[" * 20_000, "*a " * 20_000, "`" * 20_001, "- " * 5_000, "| a " * 5_000]
)
def test_a_hostile_answer_is_drawn_in_time(visit: Visit, text: str) -> None:
    visit.page.goto(visit.url)
    visit.page.set_default_timeout(10_000)
    assert len(drawn(visit, text)[0]) > 0
