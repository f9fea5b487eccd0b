"""Tool runner, the only caller of tools: enforces time and size limits, and hides internals of failures."""

from __future__ import annotations

import contextvars
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from service.infra.places import Places
from service.observe import genai, tracing
from service.observe.tracing import Span
from service.text.sanitise import storable
from service.tools.base import BadResult, Source, Tool, ToolContext, ToolFailed, ToolOutput

MAX_CONTENT = 20_000  # characters of a result shown to the model
MAX_SOURCES = 50  # sources per call, …
MAX_SOURCE_FIELD = 4_000  # … and characters per field of a source
LOOK = 0.2  # seconds between two looks whether a result is still waited for
MAX_PREVIEW = 200  # characters of a result shown to the client

log = logging.getLogger("slipway.tools")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """Result of a call. `content` is for the model, `preview` for the client, `ms` the duration in milliseconds.

    `timed_out`: the call was made and abandoned; it may still take effect. `untrusted`: `content` is text from outside,
    also of a trusted tool that has read what nobody vouches for. `signs`: of instructions that were found in it, see
    `service.guardrails.injection`; not stored.
    """

    ok: bool
    content: str
    preview: str
    ms: float = 0.0
    sources: tuple[Source, ...] = ()
    timed_out: bool = False
    untrusted: bool = False
    signs: tuple[str, ...] = ()

    @classmethod
    def of(cls, ok: bool, content: str, ms: float = 0.0, sources: Sequence[Source] = ()) -> ToolResult:
        """Make a storable result, its text truncated to the limits for model and client."""
        length, content = len(content), storable(content[:MAX_CONTENT])
        # split only a prefix: the content may be large
        preview = " ".join(content[: MAX_PREVIEW * 4].split())
        if len(preview) > MAX_PREVIEW:
            preview = preview[: MAX_PREVIEW - 1] + "…"
        if length > MAX_CONTENT:
            content += f"\n[cut: {MAX_CONTENT:,} of {length:,} characters shown]"
        return cls(ok, content, preview, round(ms, 3), tuple(map(_source, sources[:MAX_SOURCES])))

    @classmethod
    def failed(cls, message: str, ms: float = 0.0) -> ToolResult:
        """Make the result of a call that failed or was not made; `message` tells the model why."""
        return cls.of(False, message, ms)


class Invocation(NamedTuple):
    """Call to make. `context.deadline` bounds it besides the tool's own timeout."""

    tool: Tool
    arguments: Mapping[str, Any]
    context: ToolContext

    def ends(self, began: float) -> float:
        """Return the end of the wait for a call begun at `began`, both in `time.monotonic()` seconds."""
        return min(began + self.tool.timeout, self.context.deadline)


class ToolLost(ToolFailed):
    """Raised by a tool whose call was made and got no answer: the call may have had its effect."""


class ToolRunner:
    """Caller of tools, each in its own thread, at most `slots` at once in this process.

    Threads are daemons created per call, not pooled: none exists before a fork, and a tool that never returns holds one
    slot instead of blocking process exit. After each call, `called` is given the tool's name, its success and the
    milliseconds it took.
    """

    def __init__(
        self, slots: int = 32, called: Callable[[str, bool, float], None] = lambda tool, ok, ms: None
    ) -> None:
        self.places = Places(slots)
        self._called = called

    def call(self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Call `tool` and wait until its own timeout or the run's deadline. Never raises."""
        return self.call_each([Invocation(tool, arguments, context)])[0]

    def call_each(
        self, uses: Sequence[Invocation], given_up_at: Callable[[], float] = lambda: math.inf
    ) -> list[ToolResult]:
        """Make calls side by side, and wait for all; return their results in the given order. Never raises.

        `given_up_at`: time (`time.monotonic()`) from which no result is waited for; may change meanwhile.
        """
        began = time.monotonic()
        pending = [self._begin(use, began) for use in uses]
        return [
            self._end(use, *started, began, given_up_at) for use, started in zip(uses, pending, strict=True)
        ]

    def _begin(self, use: Invocation, began: float) -> tuple[Future[ToolResult], Span | None]:
        """Start the call in a thread, or say in the result why not."""
        done: Future[ToolResult] = Future()
        span = _span_of(use)
        wait = use.ends(began) - time.monotonic()
        if wait <= 0:
            done.set_result(_not_called(use, "no time is left"))
        elif not self.places.acquire(wait):
            done.set_result(_not_called(use, "every tool slot is taken"))
        elif not self._start(use, done, span):
            self.places.release()
            done.set_result(_not_called(use, "no thread to be had"))
        return done, span

    def _start(self, use: Invocation, done: Future[ToolResult], span: Span | None) -> bool:
        inherited = contextvars.copy_context()
        if span is not None:
            inherited.run(tracing.enter, span)
        work = partial(inherited.run, self._work, done, use)
        try:
            threading.Thread(target=work, name=f"tool-{use.tool.name}", daemon=True).start()
        except RuntimeError:  # the system's thread limit is reached
            return False
        return True

    def _end(
        self,
        use: Invocation,
        done: Future[ToolResult],
        span: Span | None,
        began: float,
        given_up_at: Callable[[], float],
    ) -> ToolResult:
        result = _awaited(use, done, began, given_up_at)
        if not result.ms:  # of a call that did not end
            result = replace(result, ms=round((time.monotonic() - began) * 1000, 3))
        self._called(use.tool.name, result.ok, result.ms)
        _end_span(span, result)
        log.info(
            "tool_call",
            extra={
                "tool": use.tool.name,
                "call_id": use.context.call_id,
                "run_id": use.context.run_id,
                "agent": use.context.agent,
                "ok": result.ok,
                "duration_ms": result.ms,
            },
        )
        return result

    def _work(self, done: Future[ToolResult], use: Invocation) -> None:
        began = time.monotonic()
        try:
            result = _outcome(use.tool, use.arguments, use.context)
            done.set_result(replace(result, ms=round((time.monotonic() - began) * 1000, 3)))
        finally:
            self.places.release()


def _span_of(use: Invocation) -> Span | None:
    about = {
        genai.OPERATION: genai.EXECUTE_TOOL,
        genai.TOOL: use.tool.name,
        genai.TOOL_CALL: use.context.call_id,
        genai.TOOL_TYPE: "function",
        genai.RUN: use.context.run_id,
    }
    return tracing.start(f"{genai.EXECUTE_TOOL} {use.tool.name}", "internal", about)


def _end_span(span: Span | None, result: ToolResult) -> None:
    if span is not None:
        if not result.ok:
            span.fail("timeout" if result.timed_out else "tool_failed")
        span.end()


def _awaited(
    use: Invocation, done: Future[ToolResult], began: float, given_up_at: Callable[[], float]
) -> ToolResult:
    while True:
        ends, given_up = use.ends(began), given_up_at()
        left = min(ends, given_up) - time.monotonic()
        try:
            return done.result(timeout=max(0.0, min(left, LOOK)))
        except TimeoutError:  # raised only by the wait: the tool's own errors are results
            if left <= LOOK:
                return _abandoned(use.tool) if given_up < ends else _timed_out(use.tool)


def _not_called(use: Invocation, why: str) -> ToolResult:
    return ToolResult.failed(f"{use.tool.name} was not called: {why}")


def _outcome(tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    try:
        returned = tool.run(arguments, context)
    except ToolLost as lost:
        return replace(ToolResult.failed(f"{lost}{_may_have_acted(tool)}"), timed_out=True)
    except ToolFailed as failure:
        return ToolResult.failed(str(failure))
    except BadResult as mismatch:
        log.warning("tool_result_refused", extra={"tool": tool.name, "faults": str(mismatch)})
        return ToolResult.failed(f"{tool.name} was called, but what it returned is not what it declares")
    except BaseException as error:  # even sys.exit() in a tool must not leave its caller waiting
        # log neither message nor stack: both may carry arguments
        name = type(error).__name__
        log.warning("tool_failed", extra={"tool": tool.name, "error": name, "line": _line(error)})
        return ToolResult.failed(f"{tool.name} failed: {name}")
    output = returned if isinstance(returned, ToolOutput) else ToolOutput(returned)
    try:
        result = ToolResult.of(True, _text(output.content), sources=tuple(output.sources))
        untrusted = output.untrusted or (context.knowledge is not None and context.knowledge.found_untrusted)
        return replace(result, untrusted=True) if untrusted else result
    except Exception as error:
        log.warning("tool_failed", extra={"tool": tool.name, "error": type(error).__name__, "line": ""})
        return ToolResult.failed(f"{tool.name} was called, but what it returned is not JSON")


def _text(content: Any) -> str:
    """Encode a tool's result as text. Raises `ValueError` or `TypeError` if it is no JSON or nested too deeply."""
    if isinstance(content, str):
        return str(content)
    try:
        return to_json(content).decode()
    except PydanticSerializationError:  # possibly just a lone surrogate, which can be replaced
        return json.dumps(to_jsonable_python(content), ensure_ascii=False, separators=(",", ":"))


def _source(given: Source) -> Source:
    """Keep the fields that the API contract names, as storable text."""
    return {name: storable(str(given.get(name, ""))[:MAX_SOURCE_FIELD]) for name in ("title", "uri", "quote")}


def _line(error: BaseException) -> str:
    """Return `file:line` where the error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _timed_out(tool: Tool) -> ToolResult:
    log.warning("tool_timed_out", extra={"tool": tool.name, "timeout": tool.timeout})
    message = f"{tool.name} timed out{_may_have_acted(tool)}"
    return replace(ToolResult.failed(message), timed_out=True)


def _abandoned(tool: Tool) -> ToolResult:
    message = f"{tool.name} had not ended when its run was cancelled{_may_have_acted(tool)}"
    return replace(ToolResult.failed(message), timed_out=True)


def _may_have_acted(tool: Tool) -> str:
    if tool.idempotent:
        return ""
    return "; it may still take effect, so do not call it again before checking"
