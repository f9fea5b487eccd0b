"""A2A agent over the official SDK's own server; its answers depend on the question's first word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, Part, Task, TaskState, TaskStatus
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette

from tests.conftest import free_port, wait_until


class Executor(AgentExecutor):
    """`asks`: waits for input, then repeats it; `fails`; `hangs`; any other question: two pieces of an answer."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.hanging, self.cancelled = threading.Event(), threading.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None
        self.metadata.append(MessageToDict(context.message.metadata) if context.message else {})
        task = context.current_task
        if task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            await event_queue.enqueue_event(
                Task(id=context.task_id, context_id=context.context_id, status=status)
            )
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        word = context.get_user_input().split()[0]
        if word == "asks" and task is None:
            await updater.requires_input(updater.new_agent_message([Part(text="May I?")]))
            return
        if word == "fails":
            await updater.failed(updater.new_agent_message([Part(text="SECRET words")]))
            return
        if word == "hangs":
            await asyncio.sleep(1.5)  # the task's id is told by then
            self.hanging.set()
            await asyncio.sleep(20)
        said = ["You said ", word] if task is not None else ["Good ", "day."]
        for number, piece in enumerate(said):
            last = number == len(said) - 1
            await updater.add_artifact([Part(text=piece)], "a1", append=number > 0, last_chunk=last)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None
        self.cancelled.set()
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


@contextmanager
def serving(*, streaming: bool = True) -> Iterator[tuple[str, Executor]]:
    """Serve; yield the address of the endpoint, and the executor."""
    executor = Executor()
    card = AgentCard(name="probe", version="1", capabilities=AgentCapabilities(streaming=streaming))
    handler = DefaultRequestHandler(executor, InMemoryTaskStore(), card)
    app = Starlette(routes=create_jsonrpc_routes(handler, "/a2a"))
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the A2A server")
    try:
        yield f"http://127.0.0.1:{port}/a2a", executor
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
