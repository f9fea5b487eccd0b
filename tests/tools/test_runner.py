"""Tool runner: a result within time and size limits, whatever the tool does."""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from service.tools import Tool, ToolContext, ToolFailed, ToolOutput, ToolRunner, tool
from service.tools.runner import MAX_CONTENT, MAX_PREVIEW, Invocation

MakeContext = Callable[..., ToolContext]
SOURCE = {"title": "T", "uri": "u", "quote": "q"}


def made(run: Callable[[], Any], *, timeout: float = 30.0, idempotent: bool = True) -> Tool:
    return Tool("probe", "A probe.", {}, lambda arguments, context: run(), idempotent, "read", timeout)


@pytest.fixture
def runner() -> ToolRunner:
    return ToolRunner()


def failing(error: BaseException) -> Callable[[], Any]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("returned", "content"),
    [
        ("plain text", "plain text"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (None, "null"),
        (Decimal("0.10"), '"0.10"'),
        (ToolOutput({"a": 1}, [SOURCE]), '{"a":1}'),
    ],
)
def test_returned_value_is_encoded_as_text(
    runner: ToolRunner, context: MakeContext, returned: Any, content: str
) -> None:
    result = runner.call(made(lambda: returned), {}, context())
    assert (result.ok, result.content, result.preview) == (True, content, content)
    assert result.sources == ((SOURCE,) if isinstance(returned, ToolOutput) else ())
    assert result.ms > 0


def test_large_result_is_truncated_with_a_note(runner: ToolRunner, context: MakeContext) -> None:
    result = runner.call(made(lambda: "ab\n" * 20_000), {}, context())
    assert len(result.content) < MAX_CONTENT + 100
    assert result.content.endswith("[cut: 20,000 of 60,000 characters shown]")
    assert len(result.preview) == MAX_PREVIEW
    assert "\n" not in result.preview


def test_message_of_tool_failed_is_the_result(runner: ToolRunner, context: MakeContext) -> None:
    result = runner.call(made(failing(ToolFailed("No such order."))), {}, context())
    assert (result.ok, result.content) == (False, "No such order.")


@pytest.mark.parametrize(
    "error", [ValueError("hush"), TimeoutError("hush"), SystemExit("hush"), KeyboardInterrupt("hush")]
)
def test_any_other_failure_reveals_its_type_only(
    runner: ToolRunner, context: MakeContext, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "slipway"):
        result = runner.call(made(failing(error)), {"secret": "hush"}, context())
    assert (result.ok, result.content) == (False, f"probe failed: {type(error).__name__}")
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.error == type(error).__name__  # type: ignore[attr-defined]
    assert "test_runner.py:" in warning.line  # type: ignore[attr-defined]
    assert not any("hush" in repr(vars(record)) for record in caplog.records)


def test_unencodable_result_is_a_failure(runner: ToolRunner, context: MakeContext) -> None:
    assert runner.call(made(object), {}, context()).ok is False


def test_every_call_is_one_log_event(
    runner: ToolRunner, context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "slipway"):
        runner.call(made(lambda: "x"), {}, context())
    (record,) = [record for record in caplog.records if record.message == "tool_call"]
    told = {key: vars(record)[key] for key in ("tool", "call_id", "run_id", "agent", "ok")}
    assert told == {"tool": "probe", "call_id": "toolu_1", "run_id": "run_1", "agent": "probe", "ok": True}


@pytest.mark.parametrize("idempotent", [True, False])
def test_tool_over_its_timeout_is_abandoned(
    runner: ToolRunner, context: MakeContext, idempotent: bool
) -> None:
    release = threading.Event()
    stuck = made(lambda: release.wait(30), timeout=0.05, idempotent=idempotent)
    result = runner.call(stuck, {}, context())
    release.set()
    assert not result.ok
    assert result.content.startswith("probe timed out")
    assert ("may still take effect" in result.content) is not idempotent


def test_deadline_of_the_run_applies_to_its_tools(runner: ToolRunner, context: MakeContext) -> None:
    release = threading.Event()
    patient = made(lambda: release.wait(5), timeout=3600)  # without the deadline, an answer after 5 seconds
    result = runner.call(patient, {}, context(seconds=0.05))
    release.set()
    assert result.content == "probe timed out"


def test_tool_is_not_called_after_the_deadline(runner: ToolRunner, context: MakeContext) -> None:
    called = []
    result = runner.call(made(lambda: called.append(1)), {}, context(seconds=-1))
    assert (result.ok, called) == (False, [])
    assert "no time is left" in result.content


def test_slots_are_bounded_and_come_back(context: MakeContext) -> None:
    runner = ToolRunner(slots=2)
    release = threading.Event()
    left = threading.Semaphore(0)

    def stuck() -> None:
        release.wait(30)
        left.release()

    for _ in range(2):
        assert "timed out" in runner.call(made(stuck, timeout=0.05), {}, context()).content
    called = []
    refused = runner.call(made(lambda: called.append(1), timeout=0.05), {}, context())
    assert "every tool slot is taken" in refused.content
    release.set()
    assert left.acquire(timeout=60)
    assert left.acquire(timeout=60)
    for _ in range(5):
        assert runner.call(made(lambda: "x"), {}, context()).ok
    assert called == []


def test_context_variables_reach_the_tool(runner: ToolRunner, context: MakeContext) -> None:
    request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")
    request_id.set("abc")
    assert runner.call(made(request_id.get), {}, context()).content == "abc"


def test_concurrent_calls_get_their_own_results(runner: ToolRunner, context: MakeContext) -> None:
    echo = Tool("echo", "Echo.", {}, lambda arguments, _: arguments["n"], True, "read")
    got: dict[int, str] = {}

    def call(n: int) -> None:
        got[n] = runner.call(echo, {"n": n}, context()).content

    threads = [threading.Thread(target=call, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == {n: str(n) for n in range(100)}


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_runner_works_after_a_fork(runner: ToolRunner, context: MakeContext) -> None:
    assert runner.call(made(lambda: "before"), {}, context()).ok
    child = os.fork()
    if child == 0:
        os._exit(0 if runner.call(made(lambda: "after"), {}, context()).ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_result_of_another_type_is_a_failed_call_that_was_made(
    runner: ToolRunner, context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    @tool()
    def count() -> int:
        """Count."""
        return "secret"  # type: ignore[return-value]

    with caplog.at_level(logging.INFO, "slipway"):
        result = runner.call(count, {}, context())
    assert (result.ok, result.content) == (
        False,
        "count was called, but what it returned is not what it declares",
    )
    [told] = [vars(record) for record in caplog.records if record.message == "tool_result_refused"]
    assert (told["tool"], told["faults"]) == ("count", "int_type")
    assert "secret" not in caplog.text


def test_calls_side_by_side_have_their_results_in_order(runner: ToolRunner, context: MakeContext) -> None:
    together = threading.Barrier(8)  # broken, unless all eight are under way

    def meet(arguments: Any, _: ToolContext) -> str:
        together.wait(30)
        return str(arguments["n"])

    probe = Tool("probe", "A probe.", {}, meet, True, "read")
    results = runner.call_each([Invocation(probe, {"n": n}, context()) for n in range(8)])
    assert [result.content for result in results] == [str(n) for n in range(8)]
    assert runner.call_each([]) == []


def test_one_of_several_calls_that_hangs_costs_the_others_nothing(
    runner: ToolRunner, context: MakeContext
) -> None:
    release = threading.Event()
    stuck, quick = made(lambda: release.wait(30), timeout=0.05), made(lambda: "x")
    failed = made(failing(ValueError()))
    results = runner.call_each([Invocation(one, {}, context()) for one in (stuck, quick, failed)])
    release.set()
    assert [(result.ok, result.timed_out) for result in results] == [
        (False, True),
        (True, False),
        (False, False),
    ]
