"""Runs under way in this process: a bound on their number, their answers, and their cancellation."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from service.errors import Overloaded
from service.runs.slots import Handle
from service.types import Event, RunEvent

HEARTBEAT_SECONDS = 2.0  # a client that left is noticed by the second one that it does not take
MAX_WAITING = 1_000  # events that a client has not read
WRITE_SECONDS = 30.0  # a client that reads nothing for so long is gone
LAST = {
    "succeeded": Event.RUN_COMPLETED.value,
    "failed": Event.RUN_FAILED.value,
    "waiting_approval": "run.waiting",
}
Execute = Callable[[Handle, Callable[[RunEvent], object]], dict[str, Any]]


class Running:
    """Runs of this process, at most `at_once`; thread-safe."""

    def __init__(self, at_once: int) -> None:
        self._places = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._handles: dict[str, set[Handle]] = {}

    def take(self) -> None:
        """Take a place. Raises `Overloaded`."""
        if not self._places.acquire(blocking=False):
            raise Overloaded(retry_after=1)

    def give(self) -> None:
        self._places.release()

    def cancel(self, run_id: str) -> bool:
        """Stop every execution of a run; False: there is none."""
        with self._lock:
            handles = list(self._handles.get(run_id, ()))
        for handle in handles:
            handle.stop("cancelled")
        return bool(handles)

    def answer(self, handle: Handle, execute: Execute) -> dict[str, Any]:
        """Execute in this thread, which has a place; return the answer."""
        try:
            with self._registered(handle):
                return execute(handle, lambda event: None)
        finally:
            self.give()

    def stream(self, handle: Handle, execute: Execute) -> Iterator[bytes]:
        """Execute in a thread of its own, to which the caller's place passes; yield Server-Sent Events.

        A reader that leaves, or reads nothing, stops the run.
        """
        told: queue.Queue[RunEvent | dict[str, Any]] = queue.Queue(MAX_WAITING)

        def tell(item: RunEvent | dict[str, Any]) -> None:
            try:
                told.put(item, timeout=WRITE_SECONDS)
            except queue.Full:
                handle.stop("cancelled")

        def work() -> None:
            tell(self.answer(handle, lambda handle, tell_event: execute(handle, tell)))

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(work,), name=f"run-{handle.run_id}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's thread limit is reached
            self.give()
            raise Overloaded(retry_after=1) from None
        return _read(told, handle)

    @contextmanager
    def _registered(self, handle: Handle) -> Iterator[None]:
        with self._lock:
            self._handles.setdefault(handle.run_id, set()).add(handle)
        try:
            yield
        finally:
            with self._lock:
                self._handles[handle.run_id].discard(handle)
                if not self._handles[handle.run_id]:
                    del self._handles[handle.run_id]


def _read(told: queue.Queue[RunEvent | dict[str, Any]], handle: Handle) -> Iterator[bytes]:
    """Yield events until the answer, which is the last; heartbeats meanwhile."""
    try:
        end = handle.deadline + WRITE_SECONDS
        while time.monotonic() < end:
            try:
                item = told.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                yield b": \n\n"
                continue
            if isinstance(item, RunEvent):
                yield _event(item.name.value, item.data)
            else:
                yield _event(LAST[item["status"]], item)
                return
    finally:
        handle.stop("cancelled")


def _event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
