"""Expectations of a case, checked without a model."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
from pydantic import ValidationError

from service.agents.eval_spec import Citation, Expectation, ToolCall, searcher
from service.evals.outcome import Answered
from service.text.json_schema import JsonSchema, pointer
from service.types import usd

MAX_SHOWN = 200  # characters of a value in a message


def unmet(expect: Expectation, answered: Answered) -> Iterator[str]:
    """Find expectations that an answer does not meet, in words."""
    wrong = _wrong_end(expect, answered)
    if wrong:
        yield wrong
        return
    yield from _words(expect, answered.result["output"])
    yield from _tools(expect, answered)
    yield from _sources(expect, answered)
    yield from _form(expect, answered)
    yield from _bounds(expect, answered)


def _wrong_end(expect: Expectation, answered: Answered) -> str:
    """Return how the run ended otherwise than expected; empty: as expected."""
    error = answered.error or {}
    if error.get("code") != expect.error:
        return f"the run failed: {error['detail']}" if error else f"the run did not fail with {expect.error}"
    status = answered.result["status"]
    unexpected = [name for name in answered.waited if name not in expect.approvals]
    if status == "waiting_approval" and unexpected:
        return f"{', '.join(unexpected)} waits for an approval: say `approve`, `deny` or `expect.approvals`"
    return "" if status in ("succeeded", "failed", "waiting_approval") else f"the run is {status}"


def _words(expect: Expectation, output: str) -> Iterator[str]:
    said = output.lower()
    yield from (f"the answer has no {text!r}" for text in expect.contains if text.lower() not in said)
    yield from (f"the answer has {text!r}" for text in expect.not_contains if text.lower() in said)
    yield from (f"the answer does not match {one!r}" for one in expect.matches if not _found(one, output))


def _found(pattern: str, output: str) -> bool:
    try:
        searcher(pattern).validate_python(output)
    except ValidationError:
        return False
    return True


def _tools(expect: Expectation, answered: Answered) -> Iterator[str]:
    used = {tool["name"] for tool in answered.result["tools"]}
    asked = {call.tool for call in answered.calls}
    yield from (f"the tool {name} was not used" for name in expect.tools if name not in used)
    yield from (f"the tool {name} was called" for name in expect.not_called if name in asked | used)
    yield from (
        f"no call of {name} waited for a person" for name in expect.approvals if name not in answered.waited
    )
    yield from (f"no call is {_shown(call)}" for call in expect.calls if not _asked(call, answered))


def _asked(expected: ToolCall, answered: Answered) -> bool:
    wanted = expected.arguments.items()
    return any(
        call.tool == expected.tool and all(call.arguments.get(name, ...) == value for name, value in wanted)
        for call in answered.calls
    )


def _shown(call: ToolCall) -> str:
    arguments = orjson.dumps(call.arguments).decode() if call.arguments else ""
    return f"{call.tool} {arguments}".strip()[:MAX_SHOWN]


def _sources(expect: Expectation, answered: Answered) -> Iterator[str]:
    uris = [source["uri"] for source in answered.result["sources"]]
    for begin in expect.sources:
        if not any(uri.startswith(begin) for uri in uris):
            yield f"no source is {begin}"
    yield from filter(None, (_citation_fault(one, answered) for one in expect.cites))


def _citation_fault(expected: Citation, answered: Answered) -> str:
    """Return why no source fits: none of that address, none that quotes, or only quotes that are not verbatim."""
    found = [one for one in answered.result["sources"] if one["uri"].startswith(expected.source)]
    if not found:
        return f"no source is {expected.source}"
    quoting = [one for one in found if one["quote"] and _plain(expected.quote or "") in _plain(one["quote"])]
    if not quoting:
        about = repr(expected.quote[:MAX_SHOWN]) if expected.quote else "anything"
        return f"no source of {expected.source} quotes {about}"
    verbatim = any(_is_verbatim(one, answered) for one in quoting)
    return "" if verbatim else f"the quote of {expected.source} is not in its file"


def _is_verbatim(source: dict[str, str], answered: Answered) -> bool:
    """Check a quote against the file of the agent's folder that its URI names; one from elsewhere is taken as it is."""
    folder = answered.folder.resolve()
    path = (folder / source["uri"].partition("#")[0]).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        return True
    return _plain(source["quote"]) in _plain(path.read_text("utf-8", "replace"))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _form(expect: Expectation, answered: Answered) -> Iterator[str]:
    if expect.category is not None and answered.category != expect.category:
        yield f"the category is {answered.category}, not {expect.category}"
    if expect.output_schema is not None:
        yield from _schema_faults(expect.output_schema, answered)


def _schema_faults(schema: dict[str, object], answered: Answered) -> Iterator[str]:
    output = answered.result["output"]
    try:
        value = orjson.loads(output)
    except ValueError:
        yield "the answer is not JSON"
        return
    for fault in JsonSchema(schema).faults(value, len(output)):
        yield f"the answer does not fit the schema at {pointer(fault.path) or '/'}: {fault.message}"


def _bounds(expect: Expectation, answered: Answered) -> Iterator[str]:
    steps, took = answered.result["steps"], (answered.result["latency_ms"] or 0) / 1000
    if expect.steps is not None and steps > expect.steps:
        yield f"it took {steps} steps, more than {expect.steps}"
    if expect.seconds is not None and took > expect.seconds:
        yield f"it took {took:.1f} s, longer than {expect.seconds:g} s"
    if expect.most_nano is not None and answered.cost_nano > expect.most_nano:
        yield f"it cost {usd(answered.cost_nano)} USD, more than {expect.cost_usd}"
