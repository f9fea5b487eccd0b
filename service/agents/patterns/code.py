"""Code pattern: steps as a generator of the agent's own, `agent.py`, asks for them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace
from inspect import GEN_SUSPENDED, getgeneratorstate
from types import GeneratorType
from typing import Any, cast

from service.agents.definitions import Finding
from service.agents.own_code import FILE, Program, Raised, Returned
from service.agents.pattern import Context, Events, Steps
from service.agents.requested_steps import RequestedSteps, StepRequest
from service.agents.spec import MOST_TOKENS, AgentSpec, Extent, PatternOptions
from service.errors import AgentFault, ModelError, RunLimit
from service.knowledge import Knowledge
from service.text.sanitise import storable
from service.tools.sources.fresh_module import line_in
from service.types import Answer

POLL = 0.25  # seconds between checks whether the run must stop, while the code executes
CLOSE_SECONDS = 1.0  # seconds that `finally` blocks of a run that ends get
MAX_SOURCES = 50
MAX_OUTPUT = 1_000_000  # characters of an answer: more than a model writes
MAX_FIELD = 10_000  # characters of each field of a source
PASSED_ON = (AgentFault, ModelError, RunLimit)  # errors that the code may raise for its caller
log = logging.getLogger("slipway.agents")


class Options(PatternOptions):
    """Options of this pattern: none."""

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(steps, MOST_TOKENS, free=True)


def run(context: Context) -> Events[Answer]:
    """Make the steps that the code asks for, and return its answer.

    Raises `AgentFault` for a mistake in the code, and why the run must stop while the code executes.
    """
    program = context.agent.program
    assert program is not None, "the loader refuses an agent without one"
    code = program.run(_copy(context))
    told, reply = "", None
    try:
        while True:
            asked = _outcome(context, program.advance(code, reply))
            if not isinstance(asked, StepRequest):
                answer = _answer(context.agent.id, program, asked, _line(code))
                break
            reply = yield from asked.make(context.steps)
            told += reply.text if asked.publishes else ""
            reply = deepcopy(reply)  # the journal stores the original with the next step
    except BaseException:
        _close(program, code)
        raise
    return (
        answer if told.endswith(answer.output) else replace(answer, untold=answer.output.removeprefix(told))
    )


def _copy(context: Context) -> Context:
    """Copy what the code may change and the run still needs: the turn is stored at its end."""
    request, messages = deepcopy((context.request, context.messages))
    return replace(context, request=request, messages=messages, steps=cast(Steps, RequestedSteps()))


def _outcome(context: Context, done: Future[object]) -> object:
    """Wait for the code. Raises why the run must stop; code that still executes is left behind."""
    while True:
        try:
            return done.result(timeout=min(POLL, context.steps.seconds_left()))
        except TimeoutError:  # raised only by the wait: the code's own errors are outcomes
            continue


def _answer(agent: str, program: Program, outcome: object, line: int) -> Answer:
    """Return a storable copy of the answer. Raises `AgentFault`, or the code's own error for its caller.

    `line` is that of a `yield` of anything but a step.
    """
    if isinstance(outcome, Raised):
        if isinstance(outcome.error, PASSED_ON):
            raise outcome.error
        # log neither message nor stack: both may carry texts of users
        _log(agent, type(outcome.error).__name__, line_in(outcome.error, program.path))
        raise AgentFault() from None
    if isinstance(outcome, Returned):
        try:
            return _storable(outcome.value)
        except (AttributeError, TypeError):
            _log(agent, "`run` returned no Answer, or one with fields of other types, or too long")
    else:
        _log(agent, "`run` yielded something else than a step: use `yield from`", line)
    raise AgentFault()


def _line(code: Generator[Any, Any, Any]) -> int:
    """Return the line at which the code waits for its next step; 0 once it has ended."""
    return code.gi_frame.f_lineno if isinstance(code, GeneratorType) and code.gi_frame else 0


def _log(agent: str, error: str, line: int = 0) -> None:
    place = f"{FILE}:{line}" if line else FILE
    log.error("agent_code_failed", extra={"agent": agent, "error": error, "line": place})


def _storable(answer: Any) -> Answer:
    """Copy an answer, with the fields of a source that the API contract names. Raises for other types."""
    names = ("title", "uri", "quote")
    sources = [
        {name: _text(source.get(name, ""), MAX_FIELD) for name in names}
        for source in answer.sources[:MAX_SOURCES]
    ]
    stop_reason, model = _text(answer.stop_reason, MAX_FIELD), _text(answer.model, MAX_FIELD)
    return Answer(_text(answer.output, MAX_OUTPUT), stop_reason, model, sources=tuple(sources))


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise TypeError
    return storable(value)


def _close(program: Program, code: Generator[Any, Any, Any]) -> None:
    """Let the `finally` blocks of the code run, unless it still executes or has ended."""
    if getgeneratorstate(code) != GEN_SUSPENDED:
        return
    try:
        program.close(code).result(timeout=CLOSE_SECONDS)
    except Exception as error:  # no slot, or blocks that hang: the run ends for another reason
        log.warning(
            "agent_code_left", extra={"agent": program.path.parent.name, "error": type(error).__name__}
        )


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Find nothing: whether documents and tools are used only the code knows."""
    yield from ()
