"""Parsed request: question, sources, tools and tool results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from offline_model import files
from offline_model.faults import strip_markers
from offline_model.shapes import Json

MAX_QUESTION = 2000  # characters of a question that are used
LONG_QUESTION = 300  # characters; a longer text is a source with a question in it
LOAD_SKILL = "load_skill"  # tool whose results are instructions
PASSAGE_LISTS = ("results", "passages", "documents", "matches", "hits", "items", "chunks")
PASSAGE_TEXTS = ("text", "quote", "passage", "snippet", "content", "body")
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:user )?(?:question|query|request|task|message|input)"
    r"(?:\*\*)?[ \t]*:(?:\*\*)?\s*(\S.*)",
    re.IGNORECASE | re.MULTILINE,
)
_MATERIAL = re.compile(
    r"<(context|knowledge|documents?|facts|material|notes|transcript|conversation)\b[^<>]*>", re.IGNORECASE
)
_FENCE = re.compile(r"<(untrusted-[0-9a-f]{16}) [^<>\n]*>\n")
COUNTED = re.compile(r"^Calls of ([\w-]+): (\d{1,6})$", re.MULTILINE)  # a line of this program's own notes
_ASKED = re.compile(r"<(question|query|user_input|request)\b[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Quotable text. `index` and `block` are its position for citations."""

    kind: str  # document, content, search_result, passage, said, context, system
    title: str
    text: str
    uri: str = ""
    index: int = 0
    block: int = 0
    cited: bool = False


@dataclass(frozen=True)
class Result:
    """Tool result since the question."""

    tool: str
    input: Json
    text: str
    is_error: bool
    sources: tuple[Source, ...]


@dataclass
class Conversation:
    """Parsed request: everything an answer is made of."""

    system: str = ""
    question: str = ""
    sources: list[Source] = field(default_factory=list)
    earlier: list[tuple[str, str]] = field(default_factory=list)  # (role, text) before the question
    tools: list[Json] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # sentences about images and PDFs
    noted: dict[str, int] = field(default_factory=dict)  # calls that only notes tell of, by tool
    choice: Json = field(default_factory=dict)
    seed: str = ""

    def results_of(self, tool: str) -> list[Result]:
        return [result for result in self.results if result.tool == tool]

    def times_called(self, tool: str) -> int:
        """Return how often a tool was called since the question, with the calls that only notes tell of."""
        return len(self.results_of(tool)) + self.noted.get(tool, 0)


def counts(notes: str) -> dict[str, int]:
    """Add up the calls of each tool that notes tell of."""
    found: dict[str, int] = {}
    for name, count in COUNTED.findall(notes):
        found[name] = found.get(name, 0) + int(count)
    return found


def last_user_text(body: Json) -> str:
    """Return the text of the last asking user turn, markers included."""
    return _texts(body["messages"][_asking(body["messages"])]["content"])


def read(body: Json, seed: str) -> Conversation:
    """Parse a valid request."""
    messages = body["messages"]
    asking = _asking(messages)
    system = [_texts(body.get("system") or "")] + [
        _texts(m["content"]) for m in messages if m["role"] == "system"
    ]
    parsed = Conversation(
        system="\n".join(filter(None, system)), seed=seed, choice=body.get("tool_choice") or {}
    )
    parsed.tools = [t for t in body.get("tools") or () if "input_schema" in t]
    text = strip_markers(last_user_text(body))
    question, context = split_question(text)
    parsed.question = question[:MAX_QUESTION]
    if context:
        parsed.sources.append(Source("context", "", context))
        parsed.noted = counts(context)
    parsed.sources += [
        Source("system", "", parsed.system[a:b]) for _, a, b, _ in _elements(_MATERIAL, parsed.system)
    ]
    parsed.sources += _given(messages)
    parsed.files = files.told(messages)
    for message in messages[:asking]:
        text = strip_markers(_texts(message["content"]))
        if text and message["role"] != "system":
            parsed.earlier.append((message["role"], text))
    parsed.results = _results(messages[asking:])
    parsed.sources += [source for result in parsed.results for source in result.sources]
    return parsed


def split_question(text: str) -> tuple[str, str]:
    """Split a user text into (question, source text). Short texts are all question."""
    for start, inner, stop, end in _elements(_ASKED, text):
        return text[inner:stop].strip(), (text[:start] + "\n\n" + text[end:]).strip()
    tagged = list(_elements(_MATERIAL, text))
    if tagged:
        edges = [0, *(edge for start, _, _, end in tagged for edge in (start, end)), len(text)]
        rest = " ".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip()
        label = _LABEL.search(rest)
        return label[1].strip() if label else rest, "\n\n".join(text[a:b] for _, a, b, _ in tagged).strip()
    labelled = _LABEL.search(text)
    if labelled:
        return labelled[1].strip(), (text[: labelled.start()] + "\n\n" + text[labelled.end() :]).strip()
    if len(text) > LONG_QUESTION:
        first, _, rest = text.partition("\n\n")
        if rest and len(first) <= LONG_QUESTION:
            return first.strip(), rest.strip()
        # Split, not search: a regex for `…?` takes a minute on a long text without a question mark.
        parts = re.split(r"(?<=[.!?\n])", text)
        last = max((i for i, part in enumerate(parts) if part.endswith("?")), default=None)
        if last is not None:
            return parts[last].strip(), ("".join(parts[:last]) + "\n\n" + "".join(parts[last + 1 :])).strip()
    return text, ""


def _elements(opening: re.Pattern[str], text: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, inner start, inner end, end) of <tag>…</tag>.

    Not one regular expression, which takes a minute on ten thousand unclosed tags.
    """
    done = 0
    unclosed: set[str] = set()
    for tag in opening.finditer(text):
        closing = f"</{tag[1].lower()}>"
        if closing in unclosed or tag.start() < done:
            continue
        end = re.compile(closing, re.IGNORECASE).search(text, tag.end())
        if end is None:
            unclosed.add(closing)
        else:
            done = end.end()
            yield tag.start(), tag.end(), end.start(), done


def _asking(messages: list[Json]) -> int:
    """Return the index of the last user turn with text, not only tool results."""
    users = [i for i, m in enumerate(messages) if m["role"] == "user"]
    for i in reversed(users):
        content = messages[i]["content"]
        if isinstance(content, str) or not any(b["type"] == "tool_result" for b in content):
            return i
    return users[0]


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block.get("type") == "text")


def _given(messages: list[Json]) -> list[Source]:
    """Collect documents and search results of the conversation, numbered as in citations."""
    found: list[Source] = []
    documents = searches = 0
    for block in _all_blocks(messages):
        if block.get("type") == "document":
            found += _document(block, documents)
            documents += 1
        elif block.get("type") == "search_result":
            cited = bool((block.get("citations") or {}).get("enabled"))
            for i, part in enumerate(block["content"]):
                if part.get("text"):
                    found.append(
                        Source(
                            "search_result", block["title"], part["text"], block["source"], searches, i, cited
                        )
                    )
            searches += 1
    return found


def _all_blocks(messages: list[Json]) -> list[Json]:
    found: list[Json] = []
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else ():
            inner = block.get("content") if block["type"] == "tool_result" else None
            found += inner if isinstance(inner, list) else [block]
    return found


def _document(block: Json, index: int) -> list[Source]:
    title, source = block.get("title") or "", block["source"]
    cited = bool((block.get("citations") or {}).get("enabled"))
    if source["type"] == "text":
        return [Source("document", title, source["data"], index=index, cited=cited)]
    if source["type"] == "content":
        content = source["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        texts = [(i, part["text"]) for i, part in enumerate(parts) if part.get("text")]
        return [Source("content", title, text, index=index, block=i, cited=cited) for i, text in texts]
    return []  # a PDF or a file, which cannot be read here


def _results(messages: list[Json]) -> list[Result]:
    calls: dict[str, Json] = {}
    found: list[Result] = []
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                calls[block["id"]] = block
            elif block["type"] == "tool_result" and block["tool_use_id"] in calls:
                call = calls[block["tool_use_id"]]
                text, failed = _unfenced(_texts(block.get("content") or "")), bool(block.get("is_error"))
                sources = () if failed else tuple(passages(text))
                if call["name"] == LOAD_SKILL and not failed:
                    sources = (Source("passage", str(call["input"].get("name")), text.partition("\n\n")[2]),)
                found.append(Result(call["name"], call["input"], text, failed, sources))
    return found


def _unfenced(text: str) -> str:
    """Return a tool's result without the fence that Slipway puts around text from outside."""
    fence = _FENCE.match(text)
    if fence is None or not text.endswith(f"\n</{fence[1]}>"):
        return text
    return text[fence.end() : -len(f"\n</{fence[1]}>")]


def passages(text: str) -> list[Source]:
    """Parse passages of a tool's JSON answer: {"results": [{"title", "uri", "text"}, …]} and similar."""
    if text[:1] not in "{[" or not text:
        return []
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    if isinstance(value, dict):
        value = next((value[name] for name in PASSAGE_LISTS if isinstance(value.get(name), list)), [])
    found = []
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict):
            body = next(
                (row[name] for name in PASSAGE_TEXTS if isinstance(row.get(name), str) and row[name]), ""
            )
            uri = str(row.get("uri") or row.get("url") or row.get("source") or "")
            if body:
                found.append(Source("passage", str(row.get("title") or row.get("name") or uri), body, uri))
    return found
