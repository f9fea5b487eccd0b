"""Stop handle of a run: it aborts every model call under way, and none that is over."""

from __future__ import annotations

import pytest

from service.errors import RunCancelled
from service.llm.client import ModelCall
from service.runs.slots import Handle


def begin(handle: Handle) -> ModelCall:
    return handle.call(lambda text: None, lambda progress: None)


def test_stop_aborts_all_calls_under_way() -> None:
    handle = Handle("run_1", 10)
    over, first, second = begin(handle), begin(handle), begin(handle)
    handle.over(over)
    handle.stop("cancelled")
    assert [call.aborted for call in (over, first, second)] == [False, True, True]
    assert begin(handle).aborted
    with pytest.raises(RunCancelled):
        handle.check()
