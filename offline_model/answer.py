"""Answer generation: content blocks, derived deterministically from the request."""

from __future__ import annotations

import re

import orjson

from offline_model import (
    arithmetic,
    booking,
    calls,
    conversation,
    extract,
    mailing,
    notes,
    planning,
    querying,
    writing,
)
from offline_model.conversation import Conversation, Result
from offline_model.extract import Quote
from offline_model.schema import Filler, schema_in_words
from offline_model.shapes import Json
from offline_model.text import quote, stems

INTRODUCTION = (
    "I am Slipway's offline model: a stand-in that answers without a key and can only quote what it is given."
)
_GREETING = re.compile(r"^\s*(hi|hello|hey|good (?:morning|evening|afternoon|day))\b", re.IGNORECASE)
_SUMMARY = re.compile(r"\b(summari[sz]e|summari[sz]ing|summary|tl;?dr|key points|condense)\b", re.IGNORECASE)
_RESULT_NAMES = ("result", "value", "answer", "output", "total")


def blocks(body: Json, seed: str) -> list[Json]:
    """Generate text and tool_use blocks for a valid request; `seed` makes the ids of tool calls."""
    parsed = conversation.read(body, seed)
    wanted = calls.next_calls(parsed)
    if wanted:
        return [
            {"type": "tool_use", "id": f"toolu_offline{seed}{i:02d}", "name": c.name, "input": c.input,
             "caller": {"type": "direct"}}
            for i, c in enumerate(wanted)
        ]  # fmt: skip
    form = (body.get("output_config") or {}).get("format")
    wanted_schema = form["schema"] if form else schema_in_words(parsed.system)
    if wanted_schema is not None:
        filler = Filler(wanted_schema, parsed, lambda asked: plain_answer(parsed, asked))
        filled = writing.critique(parsed, wanted_schema) or filler.fill()
        return [_text(orjson.dumps(filled).decode())]
    joined = planning.results(conversation.last_user_text(body))
    return [_text(planning.join(joined))] if joined else answer(parsed)


def answer(parsed: Conversation) -> list[Json]:
    """Generate text blocks, with citations where the sources enable them."""
    if notes.asked_for(parsed):
        return [_text(notes.write(parsed))]
    choices = extract.choices_asked_for(parsed.system)
    if choices:
        return [_text(extract.choose(parsed.question, choices, parsed.system))]
    if told := mailing.told(parsed) or booking.told(parsed):
        return [_text(told)]
    if written := writing.draft(parsed) or writing.revision(parsed):
        return [_text(written)]
    if _SUMMARY.search(parsed.question) or (not parsed.results and _SUMMARY.search(parsed.system[:200])):
        return [_text(_summarise(parsed))]
    sentences = parsed.files + _tool_sentences(parsed) + _sum_sentences(parsed)
    quotes = extract.best(_without_sum(parsed), parsed.sources)
    found = _merged([_text(f"{sentence} ") for sentence in sentences] + _quoted(quotes))
    return found or [_text(_nothing_found(parsed))]


def plain_answer(parsed: Conversation, asked: str) -> str:
    """Return the extracted answer as plain text, for a string inside JSON."""
    sentences = _tool_sentences(parsed) + _sum_sentences(parsed)
    sentences += [q.sentence.plain for q in extract.best(asked, parsed.sources)]
    return " ".join(sentences) or f"The offline model found nothing to quote about {quote(asked, 120)}."


def _without_sum(parsed: Conversation) -> str:
    total = arithmetic.find(parsed.question)
    asked = calls.clean(total.rest) if total else parsed.question
    return calls.without_calls(asked, parsed.noted)


def _sum_sentences(parsed: Conversation) -> list[str]:
    """Answer the sum in the question, from the calculator's result or by evaluating it here."""
    total = arithmetic.find(parsed.question)
    tool = calls.calculator(parsed)
    results = parsed.results_of(tool["name"]) if tool else []
    if not total or (results and results[-1].is_error):
        return []
    value = value_of(results[-1].text) if results else arithmetic.evaluate(total.expression)
    return [f"{total.asked[:1].upper()}{total.asked[1:]} is {value}."]


def _tool_sentences(parsed: Conversation) -> list[str]:
    """Quote tool results since the question; failures first and always."""
    sentences = []
    calculator = calls.calculator(parsed)
    total = arithmetic.find(parsed.question)
    for name in dict.fromkeys(result.tool for result in parsed.results):
        results = parsed.results_of(name)
        failed = [r for r in results if r.is_error]
        if failed:
            sentences.append(
                f"The {name} tool reported an error: {quote(failed[-1].text or 'no reason given', 300)}."
            )
        good = [r for r in results if not r.is_error]
        if not good or (total and calculator and name == calculator["name"]):
            continue
        if good[-1].sources or _is_empty_search(good[-1]):
            continue  # its passages are quoted elsewhere, or there are none
        if told := querying.sentence(good[-1].text, str(good[-1].input.get("sql"))):
            sentences.append(told)
            continue
        often = (
            f"The {name} tool was called {parsed.times_called(name) - len(failed)} times. It last answered"
            if parsed.times_called(name) - len(failed) > 1
            else f"The {name} tool answered"
        )
        sentences.append(f"{often}: {quote(value_of(good[-1].text) or 'nothing', 300)}.")
    return sentences


def _is_empty_search(result: Result) -> bool:
    text = result.text.strip()
    return not text or bool(
        re.fullmatch(r'(?s)\{.*"(?:results|passages|documents|matches|hits)"\s*:\s*\[\s*\].*\}|\[\s*\]', text)
    )


def value_of(text: str) -> str:
    """Extract the value of a tool result: 4 of {"result": 4}, else the text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.strip()
    if isinstance(value, dict):
        value = next((value[name] for name in _RESULT_NAMES if name in value), value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return arithmetic.plain(value)
    return value if isinstance(value, str) else text.strip()


def _quoted(quotes: list[Quote]) -> list[Json]:
    """Turn quotes into blocks: uncited ones as text, cited ones each with its citation."""
    found: list[Json] = []
    for one in quotes:
        source = one.source
        lead = (
            ""
            if not source.title
            else f"According to “{source.title}”" + (f" ({source.uri})" if source.uri else "") + ": "
        )
        if not source.cited:
            found.append(_text(f"{lead}{quote(one.sentence.plain)} "))
            continue
        if lead:
            found.append(_text(lead))
        found.append(_text(one.sentence.plain + " ") | {"citations": [citation(one)]})
    return found


def _merged(found: list[Json]) -> list[Json]:
    """Merge neighbouring blocks without citations; strip the last one's trailing space."""
    merged: list[Json] = []
    for block in found:
        if merged and not block["citations"] and not merged[-1]["citations"]:
            merged[-1]["text"] += block["text"]
        else:
            merged.append(block)
    if merged:
        merged[-1]["text"] = merged[-1]["text"].rstrip()
    return merged


def citation(one: Quote) -> Json:
    """Locate a quote: by characters in a plain-text document, by block index elsewhere."""
    source = one.source
    if source.kind == "document":
        return {
            "type": "char_location", "cited_text": source.text[one.sentence.start : one.sentence.end],
            "document_index": source.index, "document_title": source.title or None, "file_id": None,
            "start_char_index": one.sentence.start, "end_char_index": one.sentence.end,
        }  # fmt: skip
    place = {
        "cited_text": source.text,
        "start_block_index": source.block,
        "end_block_index": source.block + 1,
    }
    if source.kind == "content":
        return place | {"type": "content_block_location", "document_index": source.index,
                        "document_title": source.title or None, "file_id": None}  # fmt: skip
    return place | {"type": "search_result_location", "search_result_index": source.index,
                    "source": source.uri, "title": source.title}  # fmt: skip


def _summarise(parsed: Conversation) -> str:
    material = [source.text for source in parsed.sources] or [text for _, text in parsed.earlier]
    if not material:
        material = [re.sub(r"^[^\n]*summar[^\n:]*:?\s*", "", parsed.question, flags=re.IGNORECASE)]
    lines = extract.summary([text for text in material if text.strip()])
    return "Summary: " + " ".join(lines) if lines else f"There is nothing to summarise. {INTRODUCTION}"


def _nothing_found(parsed: Conversation) -> str:
    """Answer without a matching source: from memory, a greeting, or a statement that nothing was found."""
    memory = extract.remembered(parsed)
    if memory:
        return memory
    asked = quote(parsed.question, 200)
    if _GREETING.match(parsed.question) and len(stems(parsed.question)) <= 4:
        return f"Hello! {INTRODUCTION}"
    titles = list(dict.fromkeys(s.title for s in parsed.sources if s.title))[:3]
    if parsed.sources or parsed.results:
        where = f" ({', '.join(titles)})" if titles else ""
        return f"I found nothing about {asked} in what I was given{where}. {INTRODUCTION}"
    return f"{INTRODUCTION} You asked: {asked}"


def _text(text: str) -> Json:
    return {"type": "text", "text": text, "citations": None}
