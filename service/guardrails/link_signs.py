"""Signs of links: text that some reader, browser or chat program turns into one.

Liberal: text that only looks like a link counts. Links that an answer may keep are parsed strictly, in `listed_links`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Literal, NamedTuple

from service.guardrails.plain_text import View

# Part of Markdown or HTML in which any URL is a link; a quotation mark: an attribute of a tag, which it ends.
Inside = Literal["", "target", "tag", "definition", "'", '"']

_CONTEXT = re.compile(r"\]\(|\]:|<(?=[a-z/!])|=?[\"']|[)>]")
_OPENED: dict[str, Inside] = {"](": "target", "]:": "definition", "<": "tag"}
_ANCHOR = re.compile(r":|//+|www\.|\.(?:xn--[a-z0-9-]+|[^\W0-9_]{2,63}(?!_*[a-z0-9]|-))(?!\.\w)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*$")
_RUN = re.compile(r"[\w.-]+")  # of a host
_AUTHORITY = re.compile(r"/*([^/?#\"'<>()\\]*)")
_PATH = re.compile(r"\.?(?::[0-9]{1,5})?(?:/|\?[\w%&=#])")
_BEFORE_OTHERS = re.compile(r"(?<=[a-z])(?=[^\x00-\x7f])")  # letters of a script without spaces
LONGEST_SCHEME, LONGEST_HOST = 32, 255
# Schemes that are links without `//` too. Others are, where they follow `](` or are in a tag.
_SCHEMES = frozenset({"http", "https", "mailto", "xmpp", "magnet", "javascript", "vbscript"})
# Domains that chat programs turn into links without a path, and those reserved for examples. Left out are countries
# that are ends of file names (`.py`), common words of code (`.id`) or of English (`The end.So …`).
_COMMON_WORDS = (
    "com net org edu gov mil biz info pro mobi asia coop aero museum app dev xyz shop site online club example "
    "test invalid onion рф ac ad ae af ag ai al ao aq ar au aw ax az ba bb bd bf bg bh bi bj bm bn bo br bs bt bw "
    "bz ca cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm dz ec ee eg er es et eu fi fj fk fm fo "
    "fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gt gu gw gy hk hm hn hr ht hu ie il im io iq ir je jm jo jp ke "
    "kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly mc mg mh mk mm mn mo mp mq mr mt mu mv mw mx "
    "mz na nc ne nf ng ni nl np nr nu nz om pe pf pg ph pk pm pn pr pt pw qa ro ru rw sa sb sc sd se sg si sk sl "
    "sm sn sr ss su sv sx sy sz tc td tg th tj tk tl tm tn tr tt tw tz ua ug uk uy uz va vc ve vg vi vn vu wf ws "
    "ye yt za zm zw"
)
_COMMON = frozenset(_COMMON_WORDS.split())
# Names of code that are domains too: of others than an attacker, and without a part that could carry data.
_CODE = frozenset(
    {"logging.info", "logger.info", "log.info", "df.info", "asp.net", "vb.net", "ado.net", "ml.net"}
)
# Ends of file names that are no top-level domains: `a.js/b.js` is no link.
_FILES_WORDS = (
    "js ts jsx tsx txt html htm css scss json yaml yml toml xml csv tsv pdf png jpg jpeg gif svg log docx xlsx pptx "
    "doc xls ppt odt java cpp hpp php sql ini cfg conf lock ipynb rb go kt gz tar bak tmp"
)
_FILES = frozenset(_FILES_WORDS.split())
# Characters that end a link: those that no reader takes for a part of it, and brackets around it.
_END = re.compile(r"[<>\"'()\[\]{}|`*\u3001-\u3003\u3008-\u3011\uff01\uff08\uff09\uff0c\uff1b\uff1f]")


class Links(NamedTuple):
    """Links in a word: where each begins and ends, in order, and the part that the text after the word is in."""

    spans: list[tuple[int, int]]
    inside: Inside


def find_links(word: str, view: View, inside: Inside) -> Links:
    """Find the links in a word that begins in `inside`. Brackets that belong to a link count no more after it."""
    text, spans, cut = _with_literal_at(word, view), list[tuple[int, int]](), 0
    runs, events = _RUN.finditer(text), _CONTEXT.finditer(text)
    run, event = next(runs, None), next(events, None)
    state, before, opened = inside, inside, 0  # `before` the last event, which ends at `opened`
    for match in (*_ANCHOR.finditer(text), None):
        while event is not None and (match is None or event.start() < match.start()):
            if view.at[event.start()] >= cut:
                literal = word[view.at[event.end() - 1]] == event[0][-1]
                state, before, opened = _after(event[0], state, literal), state, view.at[event.end()]
            event = next(events, None)
        if match is None or view.at[match.start()] < cut:
            continue
        while run is not None and run.end() <= match.start():
            run = next(runs, None)
        least = bisect_left(view.at, cut)
        start = _start(text, match, state, least, run.start() if run is not None else len(text))
        if start is not None:
            begin = view.at[start]
            if match[0][0] == ".":  # a sentence may end before a domain, in a script without spaces
                begin = max(begin, word.rfind("\u3002", 0, view.at[match.start()]) + 1)
            begin, end = _span(word, begin, view.at[match.end() - 1] + 1)
            state = before if begin < opened else state
            spans.append((max(begin, cut), end))
            cut = end
    is_over = state == "definition" and not text.endswith("]:")
    return Links(spans, "" if is_over else state)


def _with_literal_at(word: str, view: View) -> str:
    """Return the view's text with an `@` only where one is written: an encoded one makes no mail address."""
    if "@" not in view.text:
        return view.text
    pairs = zip(view.text, view.at, strict=False)
    return "".join("\x02" if letter == "@" != word[at] else letter for letter, at in pairs)


def _after(mark: str, state: Inside, literal: bool) -> Inside:
    """Return the part of the text after a mark. `literal`: it is written as it is, not as an entity."""
    if state in ("'", '"'):
        return "tag" if literal and mark[-1] == state else state
    if mark[-1] in "'\"":
        quote: Inside = "'" if mark[-1] == "'" else '"'
        return quote if literal and state == "tag" and mark[0] == "=" else state
    return state if (state, mark) == ("tag", ")") else _OPENED.get(mark, "")


def holds_url(view: View) -> bool:
    """Return whether a text holds an address with a scheme, `//` or `www.`."""
    text = view.text
    return any(_start(text, match, "", 0, len(text)) is not None for match in _ANCHOR.finditer(text))


def _span(word: str, start: int, least: int) -> tuple[int, int]:
    """Return where a link begins and ends: with the marks of Markdown around it, without the end of a sentence.

    `least`: the first place where it may end.
    """
    found = _END.search(word, least)
    begin, end = start, found.start() if found is not None else len(word)
    while end > least and word[end - 1] in ".,;!?":
        end -= 1
    for before, after in (("<", ">"), ("(", ")")):
        if word[begin - 1 : begin] == before and (before == "<" or word[begin - 2 : begin] == "]("):
            begin -= 1
            end += word[end : end + 1] == after
    return begin, end


def _start(text: str, match: re.Match[str], inside: Inside, least: int, run: int) -> int | None:
    """Return where the link begins that an anchor is part of; None: the anchor is no sign of one.

    The link begins at `least` or later. `run`: beginning of the characters of a host around the anchor.
    """
    at, end = match.span()
    if match[0] == ":":
        return _scheme(text, at, inside, least)
    if match[0].startswith("//"):
        return _double_slash(text, at, inside)
    if match[0] == "www.":
        follows = text[end : end + 1]
        return at if follows.isalnum() or follows in ("_", "-") else None
    begin = max(run, least, at - LONGEST_HOST)
    return None if begin >= at else _domain(text, match, inside, begin)


def _scheme(text: str, at: int, inside: Inside, least: int) -> int | None:
    found = _SCHEME.search(text, max(least, at - LONGEST_SCHEME), at)
    if found is None:
        return None
    name, follows = found[0], at + 1 < len(text)
    if name in _SCHEMES:
        is_link = follows or bool(inside)
    elif name == "data":
        is_link = bool(inside) or "," in text[at:]
    else:
        is_link = follows if inside else text.startswith("//", at + 1) and len(name) > 1
    return found.start() if is_link else None


def _double_slash(text: str, at: int, inside: Inside) -> int | None:
    authority = _AUTHORITY.match(text, at)
    host = authority[1] if authority is not None else ""
    return at if host and (inside or "." in host or text[at - 1 : at] in ("=", '"', "'", "(")) else None


def _domain(text: str, match: re.Match[str], inside: Inside, start: int) -> int | None:
    """Return where a domain without a scheme begins: one with a path or a query, or one of `_COMMON`."""
    has_path, name = _PATH.match(text, match.end()) is not None, match[0][1:]
    if text[start - 1 : start] == "@" and not has_path:  # a mail address is text, but in `<…>` a link
        opened = text.rfind("<", 0, start)
        return opened + 1 if inside == "tag" and opened >= 0 else None
    if has_path:
        return start if name not in _FILES else None
    is_common = name in _COMMON or name.startswith("xn--") or _BEFORE_OTHERS.split(name)[0] in _COMMON
    return start if is_common and text[start : match.end()] not in _CODE else None
