"""Tool choice: which tools to call next, and their input."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from offline_model import arithmetic, booking, extract, mailing, querying, schema, skills
from offline_model.conversation import Conversation
from offline_model.shapes import Json
from offline_model.text import stems

MAX_TIMES = 1000
NUMBERS = dict(zip(["once", "twice", "thrice"], (1, 2, 3), strict=True)) | dict(
    zip(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        range(1, 13),
        strict=True,
    )
)
_GENERIC = frozenset(["get", "do", "run", "fetch", "read", "make", "the", "a", "an", "tool"])
_TIMES = re.compile(
    r"\b(\d{1,4}|" + "|".join(NUMBERS) + r")(?:\s+times\b|(?<=once)|(?<=twice)|(?<=thrice))", re.IGNORECASE
)
_ASKS = re.compile(
    r"\?|^\s*(?:please\s+)?(?:what|who|when|where|why|how|which|is|are|do|does|can|could|tell|explain|describe|find|look|"
    r"search|list|show|research|compare|write|draft|give|help|investigate|report|answer|check|plan)\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"^\s*(hi|hello|hey|thanks|thank you|good (morning|evening|day)|how are you)\b[^?]{0,40}\??\s*$",
    re.IGNORECASE,
)
_SELF_REFERENCE = re.compile(
    r"\bmy name\b|\bwho am i\b|\bwhat (did|have) i\b|\b(who|what) are you\b", re.IGNORECASE
)
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)|‘([^’]+)’")


@dataclass(frozen=True)
class Call:
    """Tool call to make."""

    name: str
    input: Json


def next_calls(parsed: Conversation) -> list[Call]:
    """Choose the tool calls of this turn; empty to answer with text."""
    if not parsed.tools or parsed.choice.get("type") == "none":
        return []
    if chosen := skills.next_call(parsed) or mailing.next_call(parsed) or booking.next_call(parsed):
        return [Call(*chosen)]
    calls = _named(parsed) or _fitting(parsed) or _forced(parsed)
    one = parsed.choice.get("disable_parallel_tool_use") or re.search(
        r"\bthen\b", parsed.question, re.IGNORECASE
    )
    return calls[:1] if one else calls


def calculator(parsed: Conversation) -> Json | None:
    return _find(parsed, r"calc|arithmetic|^math", r"arithmetic|calculat")


def table_tool(parsed: Conversation) -> Json | None:
    return next(
        (tool for tool in parsed.tools if "sql" in (tool["input_schema"].get("properties") or {})), None
    )


def search_tool(parsed: Conversation) -> Json | None:
    return _find(parsed, r"knowledge", r"^$") or _find(
        parsed, r"search|lookup|look_up|retriev|find_doc", r"search\w* .*(knowledge|doc)"
    )


def _find(parsed: Conversation, name: str, description: str) -> Json | None:
    for pattern, key in ((name, "name"), (description, "description")):
        for tool in parsed.tools:
            if re.search(pattern, str(tool.get(key) or ""), re.IGNORECASE):
                return tool
    return None


def _named(parsed: Conversation) -> list[Call]:
    """Choose tools named in the question, one call per turn, as often as the question says."""
    calls = []
    for _, tool in sorted(
        (place, i)
        for i, t in enumerate(parsed.tools)
        if (place := _place(t["name"], parsed.question)) is not None
    ):
        name = parsed.tools[tool]["name"]
        done, times = parsed.times_called(name), _times(parsed.question, name)
        if done < times:
            calls.append(Call(name, fill(parsed.tools[tool], parsed.question, done + 1 if times > 1 else 0)))
    return calls


def _place(name: str, question: str) -> int | None:
    """Find a tool's mention in the question: its name, its words in sequence, or all its distinctive words."""
    low = question.lower()
    spaced = re.sub(r"[_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower()
    for form in {name.lower(), spaced}:
        tail = r"\b" if " " in form or "_" in form or "-" in form else r"\s+tool\b"
        found = re.search(rf"\b{re.escape(form)}{tail}", low)
        if found:
            return found.start()
    content = stems(" ".join(w for w in spaced.split() if w not in _GENERIC))
    searching = re.search(r"search|knowledge|calc", name, re.IGNORECASE)  # chosen by `_fitting`
    is_named = len(content) >= 2 or (content and name.startswith("get_"))  # `get_weather` by the weather
    return len(low) if is_named and not searching and content <= stems(question) else None


def _times(question: str, name: str) -> int:
    found = _TIMES.search(question.replace(name, ""))
    if not found:
        return 1
    number = found[1].lower()
    return min(MAX_TIMES, int(number) if number.isdigit() else NUMBERS[number])


def without_calls(question: str, names: Iterable[str]) -> str:
    """Return the question without the tools to call and how often: the words that facts can fit."""
    for name in names:
        question = re.sub(rf"\b{re.escape(name)}\b(?:\s+tool\b)?", "", question)
    return _TIMES.sub("", question)


def _fitting(parsed: Conversation) -> list[Call]:
    """Choose the calculator for a sum, and the tables or the search for a question; each once per question."""
    calls = []
    total = arithmetic.find(parsed.question)
    tool = calculator(parsed)
    if total and tool and not parsed.times_called(tool["name"]):
        calls.append(Call(tool["name"], fill(tool, parsed.question, 0, total.expression)))
    tool = table_tool(parsed)
    if tool and (sql := querying.query(tool, parsed.question)):
        return calls if parsed.results_of(tool["name"]) else [*calls, Call(tool["name"], {"sql": sql})]
    tool = search_tool(parsed)
    asked = total.rest if total else parsed.question
    if tool and not parsed.times_called(tool["name"]) and _wants_knowledge(parsed, asked):
        calls.append(Call(tool["name"], fill(tool, parsed.question, 0, clean(asked))))
    return calls


def _wants_knowledge(parsed: Conversation, asked: str) -> bool:
    if (
        not _ASKS.search(parsed.question)
        or _SMALL_TALK.match(parsed.question)
        or _SELF_REFERENCE.search(parsed.question)
    ):
        return False
    instructions = stems(
        "calculate compute work sum equal evaluate total percent dollar euro use tool answer result"
    )
    return bool(stems(asked) - instructions) and extract.remembered(parsed) is None


def clean(asked: str) -> str:
    """Clean up a question after its sum was removed: conjunctions and punctuation at the seams."""
    text = re.sub(r"\s+", " ", asked)
    text = re.sub(r"\bwhat(?:'s| is| are)\s*(?=[,?;.]|and\b|$)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+([,?.;])", r"\1", text)
    return (
        re.sub(
            r"^[\s,;?.]*(?:(?:and|also)\b[\s,]*)*|(?:[\s,;]*\b(?:and|also)\b)*[\s,;?.]*$",
            "",
            text,
            flags=re.IGNORECASE,
        ).strip()
        or asked.strip()
    )


def _forced(parsed: Conversation) -> list[Call]:
    """Obey tool_choice `any` or `tool`: call a tool unless it has answered already."""
    kind = parsed.choice.get("type")
    if parsed.results or kind not in ("any", "tool"):
        return []
    tool = next((t for t in parsed.tools if t["name"] == parsed.choice.get("name")), parsed.tools[0])
    return [Call(tool["name"], fill(tool, parsed.question, 0))]


def fill(tool: Json, question: str, turn: int, main: str = "") -> Json:
    """Fill a tool's input: `main` in its first string, then quoted parts, numbers and names of the question.

    `turn` > 0 numbers repeated calls and goes into the input, so that each differs.
    """
    wanted = tool["input_schema"].get("properties") or {}
    required = tool["input_schema"].get("required") or list(wanted)[:1]
    bare = _TIMES.sub("", question.replace(tool["name"], ""))
    quoted = ["".join(groups) for groups in _QUOTED.findall(bare)]
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", _QUOTED.sub("", bare))
    filled: Json = {}
    for name in (n for n in wanted if n in required or re.search(rf"\b{re.escape(n)}\s*=", bare)):
        part = wanted[name] if isinstance(wanted[name], dict) else {}  # `true` allows anything
        match = re.search(rf"\b{re.escape(name)}\s*(?:=|:|\bis\b)\s*(\"[^\"]*\"|“[^”]*”|[^\s,;]+)", bare)
        kind = part.get("type", "string")
        if kind in ("integer", "number"):
            given = (
                match[1]
                if match and re.match(r"-?[\d.]", match[1])
                else str(turn)
                if turn
                else numbers.pop(0)
                if numbers
                else ""
            )
            filled[name] = _number(given, part, kind)
        elif kind == "string" and main:
            filled[name], main = main, ""
        elif kind == "string":
            filled[name] = _string(name, part, match, quoted, bare, turn)
        else:
            filled[name] = _other(part, question, turn)
    return filled


def _number(given: str, part: Json, kind: str) -> float:
    value = (
        float(given.replace(",", "").rstrip("."))
        if re.search(r"\d", given)
        else float(schema.limit(part, "minimum", 1))
    )
    return int(value) if kind == "integer" or value.is_integer() else value


def _string(
    name: str, part: Json, match: re.Match[str] | None, quoted: list[str], question: str, turn: int
) -> str:
    if part.get("enum"):
        return extract.choose(question, [str(v) for v in part["enum"]], str(part.get("description", "")))
    if match:
        return match[1].strip('"“”')
    email = re.search(r"[\w.+-]+@[\w-]+\.[\w.]*\w", question)
    if email and re.search(r"mail|^to$|recipient|address", name, re.IGNORECASE):
        return email[0]
    code = re.search(r"\b(?=\w*[A-Z])[A-Z][\w]*-\d[\w-]*|#\d+|\b\d{3,}\b", question)
    if code and re.search(r"id$|number|code|^order|^ref", name, re.IGNORECASE):
        return code[0].lstrip("#")
    text = quoted[0] if turn and quoted else quoted.pop(0) if quoted else ""
    if turn:
        return f"{text or name} {turn}"
    return text or clean(question)


def _other(part: Json, question: str, turn: int) -> Any:
    value = schema.Filler(
        part, Conversation(question=f"{question} {turn or ''}".strip()), lambda asked: asked
    ).fill()
    return value
